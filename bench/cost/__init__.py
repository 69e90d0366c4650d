"""The cost of an image: counted in a run, predicted without one, and added up over a suite."""
