"""CSV in, tables, figures and one HTML page out: `python -m bench.report SUITE`."""
