"""One request to a model: the model found, a worker leased, its answer passed on."""
