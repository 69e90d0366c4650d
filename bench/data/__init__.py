"""Datasets, class orders, task streams and keyed views."""
