"""The likely setting of HLGP: four benchmarks in the protocol of LAMDA-PILOT, with the recipe of
CODA-Prompt.

From LAMDA-PILOT: weights of ImageNet-21k, class orders of numpy (seed 1993; VTAB is not shuffled),
train and test folders, crops of 5 to 100% of the area (utils/data.py; there CODA-Prompt alone has
8% on CIFAR-100 and ImageNet-R). Inferred, not known of HLGP: that it uses this protocol, and its
task counts (10, 10, 10, 5). Our choice: the other four order seeds (VTAB has one order, so it has
five seeds instead), 20 epochs everywhere, batch 128, every learning rate, L2P's and DualPrompt's
sizes (those of their PyTorch ports and papers), the split of ImageNet-R (the list of the
CODA-Prompt repository).
"""

_base_ = ["./recipe_coda.py"]

data = dict(order="pilot", crop_low=0.05)
backbone = dict(name="vit_base_patch16_224.augreg_in21k")
order_seeds = [1993, 1994, 1995, 1996, 1997]

benchmarks = {
    "cifar100-10": dict(data=dict(name="cifar100", root="cifar100", tasks=10)),
    "imagenet-r-10": dict(
        data=dict(name="folder", root="imagenet-r", split="coda", crops_of="whole", tasks=10)
    ),
    "imagenet-a-10": dict(
        data=dict(name="folder", root="imagenet-a", split="pilot", crops_of="whole", tasks=10)
    ),
    "vtab-5": dict(
        data=dict(
            name="folder", root="vtab", split="pilot", crops_of="whole", tasks=5, order="natural"
        ),
        seeds=[1, 2, 3, 4, 5],
    ),
}
methods = {
    "l2p": dict(type="l2p", model=dict(pool=10, length=5, top_n=5)),
    "dualprompt": dict(_delete_=True, type="dualprompt", model=dict(g_length=5, e_length=5)),
}
