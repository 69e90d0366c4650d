"""The search behind the settings of `tiny_imagenet_orders` that `tiny_imagenet_tune` does not hold.

On validation images of 40 classes in 2 tasks, as `tiny_imagenet_tune`. Rows are NAME@RATE: CAPrompt
and VPT-NSP2 have the four rates of every other row. Rows NAME@COVARIANCE+RATE+TEMPERATURE choose
the aligned head, as `align_tune` does for glyphs: the highest mean of the two rows. 480 validation
images: a difference of two points says nothing.
"""

_base_ = ["./tiny_imagenet_orders.py"]

order_seeds = [11]
seeds = [11]
data = dict(classes=40, tasks=2, test_per_class=12, evaluate="validation")
# The defaults, SLCA's own, where none is searched.
align = dict(covariance="full", lr=0.01, temperature=0.1)

rows = _base_.methods
searched = {}
for name in ("caprompt", "nsp"):
    for rate in (0.0003, 0.0015, 0.006, 0.03):
        searched[f"{name}@{rate}"] = dict(
            rows[name], train=dict(rows[name]["train"], prompt_lr=rate)
        )
for name in ("linear", "hlgp"):
    for covariance in ("full", "shared"):
        for rate in (0.01, 0.1):
            for temperature in (0.1, 0.3, 1.0):
                searched[f"{name}@{covariance}+{rate}+{temperature}"] = dict(
                    rows[name], align=dict(covariance=covariance, lr=rate, temperature=temperature)
                )
methods = dict(_delete_=True, **searched)
del rows, searched, name, rate, covariance, temperature
