"""Cells on processes: workers on this machine, or a cluster."""
