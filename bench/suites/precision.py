"""Does bf16 change what is measured? Five rows in fp32 and in bf16.

The orders and seeds are the same, the images are validation images. The gate: in no row may the
mean difference exceed the standard deviation over the seeds of an order. Where it holds,
`precision=auto` may take bf16 on hardware that has it. On a processor without bf16 instructions the
bf16 cells take about ten times as long.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [11, 12, 13]
seeds = [11, 12, 13]

benchmarks = {
    "glyphs-r": dict(data=dict(name="glyphs-r", tasks=3, evaluate="validation", test_per_class=20))
}

rows = _base_.methods
methods = dict(
    _delete_=True,
    **{
        f"{name}@{precision}": dict(
            rows[name], train=dict(rows[name]["train"], precision=precision)
        )
        for name in ("hlgp", "l2p", "dualprompt", "coda-prompt", "linear")
        for precision in ("fp32", "bf16")
    },
)
del rows
