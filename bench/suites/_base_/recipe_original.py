"""Each method's own recipe, as its paper and its original code have it (google-research/l2p for L2P
and DualPrompt).

Adam with a constant rate of base * batch / 256, gradients clipped to norm 1, weights of
ImageNet-21k. L2P: base .03, batch 128. DualPrompt: base .03 on CIFAR-100 and .005 on ImageNet-R,
batch 24. CODA-Prompt: its repository's recipe (recipe_coda), which is L2P++'s own too, and the
reference rows' by our choice. CAPrompt, VQ-Prompt, VPT-NSP2, SLCA and OVOR: the scripts of their
repositories, but for VQ-Prompt's weights (augreg2), the views and the normalisation of VPT-NSP2 and
SLCA, and OVOR's first phase, whose cosine ends with it. HLGP has no recipe of its own that is
known, so it is not here.
Differences kept: selection is per image (the originals let a batch vote, which gives the task away
at test), and the last, smaller batch is not dropped. Different batch sizes mean different batches:
only the views of an image are the same for all.
"""

_base_ = ["./recipe_coda.py"]

backbone = dict(name="vit_base_patch16_224.augreg_in21k")
order_seeds = [1, 2, 3, 4, 5]

google = dict(epochs=5, schedule="constant", clip_norm=1.0)
methods = dict(
    _delete_=True,
    l2p=dict(
        type="l2p",
        model=dict(pool=10, length=10, top_n=4),
        train=dict(google, batch_size=128, prompt_lr=0.015, head_lr=0.015),
    ),
    dualprompt=dict(
        type="dualprompt",
        model=dict(g_length=5, e_length=5),
        train=dict(google, batch_size=24, prompt_lr=0.0028125, head_lr=0.0028125),
    ),
    # 31 epochs at the full rate, 19 at a tenth.
    caprompt=dict(
        type="caprompt",
        model=dict(length=5, cycles=2),
        train=dict(
            epochs=50,
            batch_size=24,
            schedule="step",
            clip_norm=1.0,
            prompt_lr=0.0028125,
            head_lr=0.00028125,
        ),
    ),
    # Two epochs of 40 updates of its schedule are frozen.
    **{
        "vq-prompt": dict(
            type="vq_prompt",
            model=dict(pool=10, length=8, temperature=1.0),
            train=dict(
                epochs=20,
                batch_size=128,
                optimiser="adamw",
                schedule="coswm",
                frozen=2.0,
                prompt_lr=0.0125,
                head_lr=0.0025,
            ),
        ),
    },
    # "10 epochs" of the images repeated ten times; timm's schedule drops one epoch early.
    nsp=dict(
        type="nsp",
        model=dict(temperature=28.0, eta1=0.97, eta2=0.97),
        train=dict(
            epochs=100,
            batch_size=256,
            schedule="multistep",
            milestones=(40, 70),
            prompt_lr=0.01,
            head_lr=0.01,
        ),
    ),
    slca=dict(
        type="slca",
        train=dict(
            epochs=20,
            batch_size=128,
            optimiser="sgd",
            weight_decay=5e-4,
            schedule="multistep",
            milestones=(18,),
            prompt_lr=1e-4,
            head_lr=0.01,
        ),
    ),
    # 16 epochs and 4 of its second phase.
    ovor=dict(
        type="ovor",
        train=dict(epochs=16, batch_size=128, schedule="coda", prompt_lr=1e-3, head_lr=1e-3),
    ),
    **{
        name: row
        for name, row in _base_.methods.items()
        if row["type"] not in ("hlgp", "dualprompt")
    },
)
del google
