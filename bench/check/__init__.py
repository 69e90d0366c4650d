"""Measured against expected and against published values."""
