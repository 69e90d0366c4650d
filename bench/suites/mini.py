"""The embedded benchmarks, the four methods and the reference rows: `./run_all.sh`.

It takes some minutes on two cores. The rows of suite `references` are left to it, so that this one
stays short.
"""

_base_ = ["./_base_/glyph_benchmarks.py", "./_base_/glyph_methods.py"]

reference = "hlgp"
beside = ["references"]

# With the rows of references there are more than one figure can show.
figure_rows = [
    *("hlgp", "l2p", "l2p++", "dualprompt", "coda-prompt", "caprompt", "vq-prompt", "nsp", "ovor"),
    *("ranpac", "slca", "oneprompt", "linear", "ncm", "joint-linear", "joint-prompt"),
]

rows = _base_.methods
methods = dict(
    _delete_=True,
    **{name: rows[name] for name in rows if name not in ("deep-l2p++", "oneprompt", "finetune++")},
)
del rows
