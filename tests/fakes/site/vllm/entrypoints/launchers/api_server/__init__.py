"""Not vLLM: where the launcher looks for it, a test finds the scripted engine."""
