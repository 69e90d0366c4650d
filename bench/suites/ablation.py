"""Every switch of HLGP, one at a time, from the default row `hlgp`.

Benchmarks and class orders are those of `mini`. Rows are SWITCH@VALUE. The control without
generator stands twice. Once its rates were found as HLGP's were: the best of the same twelve
settings (suite `ablation_tune`). Once its prompt rate was set for each benchmark so that its
prompts move about as far in a task as HLGP's do (see movement.csv): the generator multiplies a
prompt's step.
"""

_base_ = ["./mini.py"]

reference = "hlgp"
figure_rows = ["hlgp", "generator@*", "groups@*"]

matched = {
    "glyphs": 0.04,
    "glyphs-r": 0.03,
    "glyphs-a": 0.06,
    "glyphs-v": 0.06,
    "digits": 0.055,
}  # prompt rates
benchmarks = {
    name: dict(methods={"generator@off-matched": dict(train=dict(prompt_lr=rate))})
    for name, rate in matched.items()
}

default = _base_.methods["hlgp"]
switches = {
    "groups": [(value, dict(groups=value)) for value in (1, 2, 4, 6, 12)],
    "position": [(value, dict(position=value)) for value in ("none", "sinusoidal")],
    "weights": [(value, dict(weights=value)) for value in ("sum", "mean", "prototype")],
    "copy": [("off", dict(copy=False))],
    "layers": [
        ("0-4", dict(layers=(0, 1, 2, 3, 4), borders=(2, 4))),
        ("0-5", dict(layers=(0, 1, 2, 3, 4, 5))),
    ],
    "length": [(value, dict(length=value)) for value in (1, 10)],
    "bottleneck": [(value, dict(bottleneck=value)) for value in (4, 64)],
}
rows = {
    f"{switch}@{value}": dict(default, model=model)
    for switch, values in switches.items()
    for value, model in values
}
control = dict(type="hlgp", model=dict(generator=False))
rows |= {
    "generator@off": dict(control, train=dict(prompt_lr=0.1, head_lr=0.015)),
    "generator@off-matched": dict(control, train=dict(prompt_lr=0.03, head_lr=0.015)),
}
methods = dict(_delete_=True, hlgp=default, **rows)
del default, switches, control, rows, matched
