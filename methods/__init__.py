"""One method, one file. The runner finds a method by its file's name; see bench/method.py for the contract."""
