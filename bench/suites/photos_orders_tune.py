"""The search behind the settings of `photos_orders` that `photos_tune` does not hold.

On validation images of 18 classes in 2 tasks, as `photos_tune`. Rows are NAME@RATE: CAPrompt and
VPT-NSP2 have four each; HLGP's control too, to see how far its prompts move at which rate (table
movement.csv). Rows NAME@COVARIANCE+RATE+TEMPERATURE choose the aligned head, as `align_tune` does
for glyphs: the highest mean of the two rows. 98 validation images: a difference of less than five
points says nothing.
"""

_base_ = ["./photos_orders.py"]

order_seeds = [11]
seeds = [11]
data = dict(classes=18, tasks=2, evaluate="validation")
train = dict(epochs=2)  # one less than what it was for
align = dict(lr=0.01, temperature=0.1)  # the defaults, SLCA's own, where none is searched

rows = _base_.methods
searched = {"hlgp": rows["hlgp"]}
for name, rates in {
    "hlgp-matched": (0.06, 0.1, 0.15, 0.2),
    "caprompt": (0.003, 0.01, 0.03, 0.1),
    "nsp": (0.003, 0.01, 0.03, 0.1),
}.items():
    for rate in rates:
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
del rows, searched, name, rates, rate, covariance, temperature
