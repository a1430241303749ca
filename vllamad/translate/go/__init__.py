"""Go's behaviour that Ollama's clients rely on: JSON, fields, durations, timestamps."""
