"""Enough class orders to tell rows apart: the embedded benchmarks with ten orders.

Three orders, as in `mini`, cannot show any difference: the sign-flip test ends at p = .25 there.
The recipe is that of `mini`. HLGP stands beside its control, independent prompts, twice: at the
control's own rates, and at prompt rates at which its prompts move about as far in a task as HLGP's
(suite `ablation`). Fine-tuning is left to `mini` and `references`. The grid goes order by order, so
a part of it is already a comparison. `python -m bench.grid orders --keep` goes on from the tables
of a clone.
"""

_base_ = ["./_base_/glyph_benchmarks.py", "./_base_/glyph_methods_more.py"]

reference = "hlgp"

# More than one figure can show: left out are variants of a row that is there.
figure_rows = [
    *("hlgp", "hlgp-matched", "l2p", "l2p++", "dualprompt", "coda-prompt", "caprompt", "vq-prompt"),
    *("nsp", "ovor", "slca", "ranpac", "oneprompt", "linear", "ncm", "joint-linear"),
]

order_seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]

matched = {
    "glyphs": 0.04,
    "glyphs-r": 0.03,
    "glyphs-a": 0.06,
    "glyphs-v": 0.06,
    "digits": 0.055,
}  # prompt rates, as in ablation
benchmarks = {
    name: dict(methods={"hlgp-matched": dict(train=dict(prompt_lr=rate))})
    for name, rate in matched.items()
}
rows = _base_.methods
control = dict(type="hlgp", model=dict(generator=False))
methods = dict(
    _delete_=True,
    **{
        "hlgp": rows["hlgp"],
        "hlgp-independent": dict(control, train=dict(prompt_lr=0.1, head_lr=0.015)),
        "hlgp-matched": dict(control, train=dict(prompt_lr=0.03, head_lr=0.015)),
    },
    **{
        name: rows[name]
        for name in (
            *("l2p", "l2p++", "dualprompt", "coda-prompt", "oneprompt"),
            *("caprompt", "vq-prompt", "nsp", "nsp-control", "ovor", "ovor-paper", "slca"),
            *("ranpac", "linear", "ncm", "linear-ncm", "joint-linear", "joint-prompt"),
        )
    },
)
del rows, control, matched
