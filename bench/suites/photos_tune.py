"""Two prompt rates for each prompt method on the first 18 grocery classes (2 tasks), validation images only.

The head's rate is chosen with the frozen head alone, which costs nothing; the prompt rates were compared with it at 0.003.
"""

_base_ = ["./_base_/photo_setting.py"]

order_seeds = [11]
seeds = [11]
data = dict(classes=18, tasks=2, evaluate="validation")

rows = {
    "hlgp": dict(type="hlgp"),
    "l2p": dict(type="l2p", model=dict(pool=10, length=5, top_n=4)),
    "l2p++": dict(type="l2p_plus"),
    "dualprompt": dict(type="dualprompt"),
    "coda-prompt": dict(type="coda_prompt"),
    "joint-prompt": dict(type="oneprompt", joint=True),
}
methods = {f"linear@{rate}": dict(type="linear", train=dict(head_lr=rate)) for rate in (0.0003, 0.001, 0.003, 0.01)}
for name, row in rows.items():
    for rate in (0.003, 0.02):
        methods[f"{name}@{rate}"] = dict(
            type=row["type"],
            model=row.get("model", {}),
            train=dict(prompt_lr=rate, head_lr=0.003, joint=row.get("joint", False)),
        )
del rows, name, row, rate
