"""The numbers of every format that is written to disk or goes into a cache key.

Each is one integer. Raise it when the bytes change their meaning: files of another number are then
refused or made again, never misread.
"""

CHECKPOINT = 6  # a run's checkpoints: an unfinished run with another number starts again
QUERIES = 1  # cached query features: all are computed again
DECODED_IMAGES = 2  # cached pixels of image folders: all files are decoded again
VIEWS = 1  # boxes and resampling of views: query features of views are computed again
TABLES = 1  # CSV tables of results: tables with another number are refused
