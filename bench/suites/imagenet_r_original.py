"""Split ImageNet-R, 10 tasks, each method's own recipe, five class orders.

Published final average accuracy (the methods' own papers, Wang et al. CVPR 2022 and ECCV 2022; n
unknown): L2P 61.57 ± 0.66 (forgetting 9.73), with the votes of a batch that holds one task, so not
compared; DualPrompt 68.13 ± 0.49 (4.68); CODA-Prompt 75.45 ± 0.56 (n = 5) with other weights (see
imagenet_r_coda). Data as there. L2P's 50 epochs here are DualPrompt's: our choice.

Not run by this project: no GPU. Command: ./run_all.sh imagenet_r_original --device cuda
Cost: 8,338 PFLOP, 129,143,840 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_original.py"]

data = dict(name="folder", root="imagenet-r", split="coda", crops_of="whole")
benchmarks = {"imagenet-r-10": dict()}
train = dict(epochs=50)
methods = {
    "l2p": dict(train=dict(epochs=50)),
    "caprompt": dict(
        model=dict(length=10, layers=(0, 1, 2, 3, 4, 5, 6, 7, 8), delta=5.0),
        train=dict(epochs=100, schedule="constant"),
    ),
    "nsp": dict(model=dict(temperature=30.0, eta1=0.94, eta2=0.94), train=dict(epochs=100)),
    "slca": dict(train=dict(epochs=50, milestones=(40,))),
    "ovor": dict(model=dict(epochs=10), train=dict(epochs=40)),
    "vq-prompt": dict(train=dict(epochs=20, batch_size=64, frozen=1.0)),
    "dualprompt": dict(
        model=dict(e_length=20), train=dict(epochs=50, prompt_lr=0.00046875, head_lr=0.00046875)
    ),
}
