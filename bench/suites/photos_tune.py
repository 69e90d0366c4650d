"""The search behind the recipe of `photos`: four rates for every row.

On validation images of 18 classes in 2 tasks. The head's rate is chosen with the frozen head alone,
which costs nothing; every other row has it while its own is searched. Rows are NAME@RATE. Classes
are the first 18 of the 81; class order and seed are none that `photos` reports. 98 validation
images: a difference of less than five points says nothing.
"""

_base_ = ["./_base_/photo_setting.py", "./_base_/photo_methods.py"]

order_seeds = [11]
seeds = [11]
data = dict(classes=18, tasks=2, evaluate="validation")

searched = {}
for name, row in _base_.methods.items():
    if name in ("ncm", "linear-ncm", "joint-linear"):
        continue
    scale = (
        0.005 if name.startswith("finetune") else 1.0
    )  # all weights of a network take smaller steps than a prompt
    for rate in (0.003, 0.01, 0.03, 0.1) if name == "linear" else (0.001, 0.003, 0.01, 0.03):
        rates = dict(head_lr=rate) if name == "linear" else dict(prompt_lr=rate * scale)
        searched[f"{name}@{rate if name == 'linear' else rate * scale:.2g}"] = dict(
            row, train=dict(row["train"], **rates)
        )
methods = dict(_delete_=True, **searched)
del searched, name, row, scale, rate, rates
