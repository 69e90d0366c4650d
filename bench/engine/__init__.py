"""One cell: built, trained task after task, evaluated, saved."""
