"""Run directories, atomic files, the CSV tables and their collection."""
