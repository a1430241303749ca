"""Engine runtimes: the Python environments that vLLM is installed in, and what each can do.

Installs, repairs, lists and probes them. Knows no models and starts no workers.
"""
