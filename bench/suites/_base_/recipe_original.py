"""Each method's own recipe, as its paper and its original code have it (google-research/l2p for L2P and DualPrompt).

Adam with a constant rate of base * batch / 256, gradients clipped to norm 1, weights of ImageNet-21k. L2P: base .03, batch 128.
DualPrompt: base .03 on CIFAR-100 and .005 on ImageNet-R, batch 24. CODA-Prompt: its repository's recipe (recipe_coda), which
is L2P++'s own too, and the reference rows' by our choice. HLGP has no recipe of its own that is known, so it is not here.
Differences kept: selection is per image (the originals let a batch vote, which gives the task away at test), and the last,
smaller batch is not dropped. Different batch sizes mean different batches: only the views of an image are the same for all.
"""

data = dict(order="coda", tasks=10, crop_low=0.08, flip=True)
backbone = dict(name="vit_base_patch16_224.augreg_in21k", image_size=224, normalise="zero_one")
order_seeds = [1, 2, 3, 4, 5]
seeds = [1]
train = dict(optimiser="adam", schedule="constant", clip_norm=1.0, precision="auto")

coda = dict(epochs=20, batch_size=128, prompt_lr=1e-3, head_lr=1e-3, schedule="coda", clip_norm=0.0)
methods = {
    "l2p": dict(
        type="l2p",
        model=dict(pool=10, length=10, top_n=4),
        train=dict(epochs=5, batch_size=128, prompt_lr=0.015, head_lr=0.015),
    ),
    "dualprompt": dict(
        type="dualprompt",
        model=dict(g_length=5, e_length=5),
        train=dict(epochs=5, batch_size=24, prompt_lr=0.0028125, head_lr=0.0028125),
    ),
    "coda-prompt": dict(type="coda_prompt", model=dict(pool=100, length=8), train=coda),
    "l2p++": dict(type="l2p_plus", model=dict(pool=30, length=20, top_n=5), train=coda),
    "deep-l2p++": dict(type="deep_l2p", model=dict(pool=30, length=20, top_n=5), train=coda),
    "oneprompt": dict(type="oneprompt", model=dict(layers=(0, 1, 2, 3, 4), length=10), train=coda),
    "linear": dict(type="linear", train=coda),
    "ncm": dict(type="ncm"),
    "linear-ncm": dict(type="linear_ncm", train=coda),
    "finetune++": dict(type="finetune", train=dict(coda, prompt_lr=1e-5)),
    "finetune": dict(type="finetune", train=dict(coda, prompt_lr=1e-5, loss_classes="seen")),
    "joint-linear": dict(type="linear", train=dict(coda, joint=True)),
    "joint-prompt": dict(type="oneprompt", model=dict(length=10), train=dict(coda, joint=True)),
}
del coda
