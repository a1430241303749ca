"""HTTP/1.1 of our own sockets: the client of an engine, the server of the control socket.

Models and APIs are unknown here.
"""
