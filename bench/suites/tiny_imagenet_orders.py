"""The Tiny-ImageNet of `tiny_imagenet_small` with both heads, six class orders and further rows.

Three orders cannot show any difference: six are the least at which the sign-flip test can fall
below .05. Images, network, steps and rates are those of `tiny_imagenet_small`. HLGP and its control
move their prompts alike there at their own rates (0.30 and 0.27 a task, RMS), so that no further
control of like movement is needed. CAPrompt, VPT-NSP2 and the aligned head have the best of their
settings on validation images (suite `tiny_imagenet_orders_tune`); RanPAC's projection was not
searched. bf16 on every machine, so that cells of several belong to one table: a processor without
such instructions takes ten times as long and more. The grid goes order by order, so a part of it is
already a comparison.
"""

_base_ = ["./tiny_imagenet_small.py"]

order_seeds = [1, 2, 3, 4, 5, 6]

train = dict(precision="bf16")
align = dict(covariance="shared", lr=0.1, temperature=0.3)

head = 0.01
rows = dict(_base_.methods) | {
    "caprompt": dict(type="caprompt", train=dict(prompt_lr=0.03, head_lr=head)),
    "nsp": dict(type="nsp", model=dict(temperature=1.0), train=dict(prompt_lr=0.006, head_lr=head)),
    "ranpac": dict(type="ranpac", model=dict(projection=2000)),
}
methods = dict(
    _delete_=True,
    **{
        name: rows[name]
        for name in (
            *("hlgp", "hlgp-independent", "l2p++", "dualprompt", "coda-prompt"),
            *("oneprompt", "caprompt", "nsp", "ranpac"),
            *("linear", "ncm", "joint-linear", "joint-prompt"),
        )
    },
)
del head, rows
