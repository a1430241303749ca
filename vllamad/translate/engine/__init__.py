"""vLLM's side of the translation: its events, its refusals, and limits of one worker."""
