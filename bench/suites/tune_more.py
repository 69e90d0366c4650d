"""The search behind the recipe of RanPAC on the embedded benchmarks: twelve sizes of its random
projection.

On classes that no benchmark uses, on validation images, with a class order that no reported run
uses, as suite `tune`. RanPAC has no learning rate. Rows are ranpac@M, where 0 is no projection; the
chosen one has the highest final average accuracy.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [11]
seeds = [11, 12]

data = dict(name="glyphs-tune", classes=60, tasks=3, evaluate="validation", test_per_class=20)
benchmarks = {"glyphs-tune": dict()}
methods = dict(
    _delete_=True,
    **{
        f"ranpac@{size}": dict(type="ranpac", model=dict(projection=size))
        for size in (0, 100, 200, 300, 500, 700, 1000, 1400, 2000, 2500, 3000, 4000)
    },
)
