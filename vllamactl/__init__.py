"""The command line of vllamad: a client of its control socket and of Ollama's API."""
