"""mmengine's Config, imported so that processes that start together cannot break each other.

mmengine imports yapf to print configs, which nothing here does. yapf 0.43 keeps two grammars in the
user's cache and renames them to their final names before they are written
(yapf_third_party/_ylib2to3/pgen2/grammar.py, Grammar.dump). Another process on a fresh machine that
imports yapf meanwhile ends with "EOFError: Ran out of input"; after a full disk, every later one.
"""

from __future__ import annotations

import os

import platformdirs

_user_cache_dir = platformdirs.user_cache_dir
# This is no folder, so yapf makes its grammars anew (20 ms) and keeps none.
platformdirs.user_cache_dir = lambda *_, **__: os.devnull
try:
    from mmengine.config import Config, DictAction
finally:
    platformdirs.user_cache_dir = _user_cache_dir

__all__ = ["Config", "DictAction"]
