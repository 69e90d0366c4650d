"""The search behind the recipe of `tiny_imagenet_small`: four rates a row.

On validation images of 40 classes in 2 tasks. As `photos_tune`: the head's rate is chosen with the
frozen head alone, every other row has it while its own is searched; rows are NAME@RATE. Classes are
the first 40 of the 200; class order and seed are none that the suite reports. Trained on 20 images
a class, as in the suite, and judged on 12 others of the dataset's training images: 480, a
difference of two points says nothing.
"""

_base_ = ["./tiny_imagenet_small.py"]

order_seeds = [11]
seeds = [11]
data = dict(classes=40, tasks=2, test_per_class=12, evaluate="validation")

searched = {}
for name, row in _base_.methods.items():
    if name in ("ncm", "linear-ncm", "joint-linear"):
        continue
    scale = (
        0.005 if name.startswith("finetune") else 1.0
    )  # all weights of a network take smaller steps than a prompt
    for rate in (0.001, 0.003, 0.01, 0.03) if name == "linear" else (0.0003, 0.0015, 0.006, 0.03):
        rates = dict(head_lr=rate) if name == "linear" else dict(prompt_lr=rate * scale)
        searched[f"{name}@{rate if name == 'linear' else rate * scale:.2g}"] = dict(
            row, train=dict(row["train"], **rates)
        )
methods = dict(_delete_=True, **searched)
del searched, name, row, scale, rate, rates
