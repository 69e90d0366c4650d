"""The rates of HLGP's own control, independent prompts per layer.

Settings, classes, images and order are those of suite `tune`.
"""

_base_ = ["./tune.py"]

control = dict(type="hlgp", model=dict(generator=False))
methods = dict(
    _delete_=True,
    **{
        name.replace("hlgp@", "hlgp-independent@"): dict(control, train=row["train"])
        for name, row in _base_.methods.items()
        if name.startswith("hlgp@")
    },
)
del control
