"""mmengine's Config, imported so that processes which start at once cannot break each other.

mmengine imports yapf to print configs (nothing here does), and yapf 0.43 keeps two grammars in the user's cache: renamed into
place before they are written (yapf_third_party/_ylib2to3/pgen2/grammar.py, Grammar.dump). Whatever is imported meanwhile, by
another cell of a fresh machine or cluster, ends with "EOFError: Ran out of input"; after a full disk, every later import.
"""

from __future__ import annotations

import os

import platformdirs

_user_cache_dir = platformdirs.user_cache_dir
platformdirs.user_cache_dir = lambda *_, **__: (
    os.devnull
)  # no folder: yapf makes its grammars anew (20 ms) and keeps none
try:
    from mmengine.config import Config, DictAction
finally:
    platformdirs.user_cache_dir = _user_cache_dir

__all__ = ["Config", "DictAction"]
