"""The side of vLLM: its events and refusals, and the limits of one worker."""
