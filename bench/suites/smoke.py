"""The regression check: the four methods and the controls on small splits.

It takes a minute or two on two cores. The benchmark is `glyphs-relief`. Run by `python -m
bench.check smoke`, which compares with bench/expected/smoke.csv. One style that prompts repair
fast, twice: all 20 classes in one task (are prompts inserted and trained as they were?), and in two
tasks (selection, masking, routing, forgetting). It does not show which method is better. fp32, so
that processors with and without bf16 agree.
"""

_base_ = ["./_base_/glyph_methods.py"]

reference = "hlgp"

order_seeds = [1]
seeds = [1, 2]

data = dict(
    name="glyphs-relief", classes=20, evaluate="validation", test_per_class=50, crop_low=0.6
)
train = dict(epochs=5, schedule="cosine", prompt_lr=0.02, head_lr=0.01, precision="fp32")
benchmarks = {"relief-1x20": dict(data=dict(tasks=1)), "relief-2x10": dict(data=dict(tasks=2))}
methods = dict(
    _delete_=True,
    **{
        "hlgp": dict(type="hlgp", train=dict(prompt_lr=0.01)),
        "l2p": dict(type="l2p", model=dict(pool=10, length=5, top_n=4)),
        "dualprompt": dict(type="dualprompt"),
        "coda-prompt": dict(type="coda_prompt", model=dict(pool=60)),
        "linear": dict(type="linear"),
        "ncm": dict(type="ncm"),
        "linear-ncm": dict(type="linear_ncm"),
    },
)
