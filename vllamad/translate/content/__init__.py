"""Content of requests: images, JSON schemas, compressed bodies, fill-in-the-middle prompts."""
