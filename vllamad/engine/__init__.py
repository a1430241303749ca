"""All that changes when vLLM changes."""
