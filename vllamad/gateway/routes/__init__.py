"""The routes: each reads a request, and answers it by `inference` or by the supervisor."""
