"""A Hugging Face hub: its API, downloads, and the processes that run them."""
