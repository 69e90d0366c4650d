"""Files on disk: run directories, CSV tables, the cache, locks."""
