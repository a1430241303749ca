"""A checkpoint's own files, read without trust: what its model is and can do."""
