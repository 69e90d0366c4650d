"""Past the edges of suite `tune`, for rows whose best rate was the lowest or highest.

One or two steps further out. `hlgp-independent` is HLGP's control, whose search is the suite
`ablation_tune`.

Same classes, images, order and seeds. The recipe stays the one of `tune`, where every row had the
same number of settings: this says what that edge costs a row.
"""

_base_ = ["./tune.py"]

beyond = {
    "hlgp": [(prompt, head) for prompt in (0.0003, 0.001) for head in (0.006, 0.015, 0.04)],
    "hlgp-independent": [(0.3, head) for head in (0.006, 0.015, 0.04)],
    "l2p": [(0.001, head) for head in (0.006, 0.015, 0.04)]
    + [(prompt, 0.1) for prompt in (0.001, 0.003, 0.01)],
    "coda-prompt": [(prompt, 0.1) for prompt in (0.003, 0.01, 0.03)],
    "oneprompt": [(0.3, head) for head in (0.006, 0.015, 0.04)],
    "finetune": [(0.000005, head) for head in (0.006, 0.015, 0.04)],
}
rows = {label.split("@")[0]: row for label, row in _base_.methods.items()}
rows["hlgp-independent"] = dict(rows["hlgp"], model=dict(generator=False))
methods = dict(
    _delete_=True,
    **{
        f"{name}@{prompt:.2g}+{head:.2g}": dict(
            rows[name], train=dict(rows[name]["train"], prompt_lr=prompt, head_lr=head)
        )
        for name, pairs in beyond.items()
        for prompt, head in pairs
    },
)
del beyond, rows
