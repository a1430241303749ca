"""Models on our disk: the store's files and manifests, and every change to them."""
