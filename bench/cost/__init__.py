"""What an image costs: counted in a run, predicted without one, and added up over a suite."""
