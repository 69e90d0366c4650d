"""All rows of the embedded benchmarks with their recipe: the best of twelve settings each on
validation images of other classes (suite `tune`).

Two epochs a task, so that everything runs in minutes; the schedule falls at every step, since a
last epoch near zero would be half of the training; crops of 85% or more, since smaller ones need
more epochs than there are.

Every row's cross-entropy is over the current task's classes, but for `finetune`: naive fine-tuning
takes the logits of all classes seen (FT in the tables of the CODA-Prompt paper). `finetune++` is
the same with the common loss (FT++ there). L2P's prompts have one token each: five of them stand
beside 17 tokens, where the paper has 25 beside 197. The aligned heads have the setting that suite
`align_tune` chose on validation images.
"""

data = dict(crop_low=0.85)
align = dict(covariance="full", lr=0.1, temperature=0.1, samples=64)
train = dict(epochs=2, batch_size=32, optimiser="adam", schedule="cosine_step", precision="fp32")

methods = {
    "hlgp": dict(type="hlgp", train=dict(prompt_lr=0.003, head_lr=0.015)),
    "l2p": dict(
        type="l2p",
        model=dict(pool=10, length=1, top_n=5),
        train=dict(prompt_lr=0.003, head_lr=0.04),
    ),
    "l2p++": dict(
        type="l2p_plus",
        model=dict(pool=30, length=10, top_n=5),
        train=dict(prompt_lr=0.01, head_lr=0.015),
    ),
    "deep-l2p++": dict(
        type="deep_l2p",
        model=dict(pool=30, length=10, top_n=5),
        train=dict(prompt_lr=0.03, head_lr=0.015),
    ),
    "dualprompt": dict(type="dualprompt", train=dict(prompt_lr=0.03, head_lr=0.015)),
    "coda-prompt": dict(
        type="coda_prompt", model=dict(pool=60), train=dict(prompt_lr=0.01, head_lr=0.04)
    ),
    "oneprompt": dict(
        type="oneprompt",
        model=dict(layers=(0, 1, 2, 3, 4)),
        train=dict(prompt_lr=0.1, head_lr=0.015),
    ),
    "linear": dict(type="linear", train=dict(head_lr=0.019)),
    "ncm": dict(type="ncm"),
    "linear-ncm": dict(type="linear_ncm", train=dict(head_lr=0.019)),
    "finetune++": dict(type="finetune", train=dict(prompt_lr=0.00005, head_lr=0.015)),
    "finetune": dict(
        type="finetune", train=dict(prompt_lr=0.000015, head_lr=0.015, loss_classes="seen")
    ),
    "joint-linear": dict(type="linear", train=dict(joint=True, head_lr=0.013)),
    "joint-prompt": dict(type="oneprompt", train=dict(joint=True, prompt_lr=0.03, head_lr=0.015)),
}
