"""Comparison of results with expected and with published values."""
