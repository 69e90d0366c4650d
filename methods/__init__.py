"""One file per method, found by its name. The contract is in bench/method.py."""
