"""Further rows on the benchmarks, class orders, views and recipe of `mini`.

CODA-Prompt and `linear` stand here as in it. What a user would try first: one prompt for all tasks,
L2P++ in five blocks, fine-tuning of everything with the common loss. And methods that came later.
"""

_base_ = ["./_base_/glyph_benchmarks.py", "./_base_/glyph_methods_more.py"]

rows = _base_.methods
methods = dict(
    _delete_=True,
    **{
        name: rows[name]
        for name in (
            *("deep-l2p++", "oneprompt", "finetune++", "coda-prompt", "linear"),
            *("caprompt", "vq-prompt", "nsp", "nsp-control", "ovor", "ovor-paper"),
            *("slca", "ranpac"),
        )
    },
)
del rows

reference = ""  # each is compared with in the report of mini
