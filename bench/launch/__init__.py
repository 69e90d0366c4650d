"""Where cells are run: on worker processes of this machine, or on a cluster."""
