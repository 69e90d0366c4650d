"""The photographs of `photos` with both heads, more class orders, and a control of like movement.

Three orders cannot show any difference: six are the least at which the sign-flip test can fall
below .05. To pay for them, images have 70 pixels and a class at most ten test images, so numbers
are not those of `photos`. Epochs and rates are; two epochs were tried first and did not keep the
ranking on order 1 (docs/photographs.md). CAPrompt and VPT-NSP2, which are not in `photos`, and the
aligned head have the best of their settings on validation images (suite `photos_orders_tune`);
RanPAC's projection was not searched. The control's second rate is for movement like HLGP's: on
order 1 its prompts move by 1.38 a task and HLGP's by 1.37 (RMS). There it is below the frozen head,
so HLGP has a second rate too: its prompts move by 0.21 a task, its control's at its own rate by
0.24. The grid goes order by order, so a part of it is already a comparison. `python -m bench.grid
photos_orders --keep` goes on from the tables of a clone.
"""

_base_ = ["./_base_/photo_setting.py", "./_base_/photo_methods.py"]

reference = "hlgp"

order_seeds = [1, 2, 3, 4, 5, 6]
seeds = [1]

data = dict(test_per_class=10)
backbone = dict(image_size=70)
align = dict(covariance="full", lr=0.1, temperature=0.3)

head = 0.01
rows = dict(_base_.methods) | {
    "hlgp-matched": dict(
        type="hlgp", model=dict(generator=False), train=dict(prompt_lr=0.2, head_lr=head)
    ),
    "hlgp-slow": dict(type="hlgp", train=dict(prompt_lr=0.0003, head_lr=head)),
    "caprompt": dict(type="caprompt", train=dict(prompt_lr=0.1, head_lr=head)),
    "nsp": dict(type="nsp", model=dict(temperature=1.0), train=dict(prompt_lr=0.01, head_lr=head)),
    "ranpac": dict(type="ranpac", model=dict(projection=2000)),
}
methods = dict(
    _delete_=True,
    **{
        name: rows[name]
        for name in (
            *("hlgp", "hlgp-independent", "hlgp-matched", "hlgp-slow", "l2p++", "dualprompt"),
            *("coda-prompt", "oneprompt", "caprompt", "nsp", "ranpac"),
            *("linear", "ncm", "joint-linear", "joint-prompt"),
        )
    },
)
del head, rows
