"""The model store on disk: manifests, files, uploaded blobs, and every change to them.

Everything here blocks and is called in a thread. Knows neither the hub nor the engine.
"""
