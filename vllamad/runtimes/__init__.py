"""Engine runtimes: Python environments that hold a vLLM, side by side."""
