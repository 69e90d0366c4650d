"""Is it the two epochs? `glyphs-r` with ten: prompts against the sequential head.

Judged on validation images, on class orders of its own. In `mini` no prompt method is above
`linear` although joint training shows something to learn. The prompt rows keep the rates of `mini`;
the head, which may want a smaller one over five times as many steps, has three.
"""

_base_ = ["./_base_/glyph_methods.py"]

reference = "hlgp"

order_seeds = [11, 12, 13]
seeds = [11]

train = dict(epochs=10)
benchmarks = {"glyphs-r": dict(data=dict(name="glyphs-r", tasks=3, evaluate="validation"))}

rows = _base_.methods
methods = dict(
    _delete_=True,
    **{name: rows[name] for name in ("hlgp", "dualprompt", "coda-prompt")},
    **{
        f"linear@{rate}": dict(type="linear", train=dict(head_lr=rate))
        for rate in (0.003, 0.0075, 0.019)
    },
)
del rows
