"""The command line of vllamad: a client of its control socket."""
