"""OpenAI's API: the fields that reach the engine, and the keys of the responses."""
