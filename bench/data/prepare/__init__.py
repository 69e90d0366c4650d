"""The papers' datasets: fetched, unpacked, split and checked."""
