"""Models on this machine: which are installed, what their files say, and where they come from.

`store` changes what is on disk, `checkpoint` reads a model's files, `hub` downloads, `registry`
knows the names that can be pulled. Nothing here schedules, serves HTTP, or knows the engine's
flags.
"""
