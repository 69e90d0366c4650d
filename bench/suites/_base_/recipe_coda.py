"""One recipe for all methods, as GT-RIPL/CODA-Prompt (commit 6417d4f) runs them.

Adam 1e-3 for prompts and head alike, the released cosine schedule that runs one epoch late
(`schedule=coda`), batch 128, inputs in [0, 1] without mean and std, RandomResizedCrop (8% to 100%)
and flip, the class orders of its five trials (seed r of `random.shuffle`, r = 0 is the identity).
Differences kept: the last, smaller batch is not dropped; L2P++'s key loss is over an image's own
keys; keys of tasks that have not begun do not compete in DualPrompt's selection. HLGP has no
official recipe: its prompt rate here is our choice.
"""

data = dict(order="coda", tasks=10, crop_low=0.08, flip=True)
backbone = dict(
    name="vit_base_patch16_224.augreg_in21k_ft_in1k", image_size=224, normalise="zero_one"
)
train = dict(
    epochs=20,
    batch_size=128,
    optimiser="adam",
    prompt_lr=1e-3,
    head_lr=1e-3,
    schedule="coda",
    precision="auto",
)
order_seeds = [0, 1, 2, 3, 4]
seeds = [1]

methods = {
    "hlgp": dict(
        type="hlgp", model=dict(groups=3, length=10, bottleneck=16), train=dict(prompt_lr=3e-3)
    ),
    "hlgp-independent": dict(
        type="hlgp", model=dict(length=10, generator=False), train=dict(prompt_lr=1e-2)
    ),
    "l2p++": dict(type="l2p_plus", model=dict(pool=30, length=20, top_n=5)),
    "deep-l2p++": dict(type="deep_l2p", model=dict(pool=30, length=20, top_n=5)),
    "dualprompt": dict(
        type="dualprompt", model=dict(g_length=3, e_length=10, init=(0.0, 1.0), form="coda")
    ),
    "coda-prompt": dict(type="coda_prompt", model=dict(pool=100, length=8)),
    "oneprompt": dict(type="oneprompt", model=dict(layers=(0, 1, 2, 3, 4), length=10)),
    "ranpac": dict(type="ranpac", model=dict(projection=10000)),
    "linear": dict(type="linear"),
    "ncm": dict(type="ncm"),
    "linear-ncm": dict(type="linear_ncm"),
    "finetune++": dict(type="finetune", train=dict(prompt_lr=1e-5)),
    "finetune": dict(type="finetune", train=dict(prompt_lr=1e-5, loss_classes="seen")),
    "joint-linear": dict(type="linear", train=dict(joint=True)),
    "joint-prompt": dict(type="oneprompt", model=dict(length=10), train=dict(joint=True)),
}
