"""Access rules: API keys and their scopes, Host and Origin headers. Pure, no I/O."""
