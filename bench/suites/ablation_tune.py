"""The rate of HLGP's own control, independent prompts per layer, on the classes, images and order of the suite `tune`."""

_base_ = ["./tune.py"]

methods = dict(
    _delete_=True,
    **{
        f"hlgp-independent@{rate}+0.01": dict(
            type="hlgp", model=dict(generator=False), train=dict(prompt_lr=rate, head_lr=0.01)
        )
        for rate in (0.006, 0.02, 0.06)
    },
)
