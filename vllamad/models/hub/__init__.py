"""Downloads from a Hugging Face hub: its API, the choice of files, and the process that pulls.

Only `hub_api.py` imports the hub's library. What a model is for is unknown here.
"""
