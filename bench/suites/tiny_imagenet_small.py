"""Split Tiny-ImageNet at middle scale: 10 tasks of 20 classes, 20 images a class.

ViT-S/14 (DINOv2) at 98 pixels, three class orders. As many steps a task (100) as `photos`, with
rates of its own: the best of four a row on validation images (suite `tiny_imagenet_tune`): HLGP
collapses at twice its rate of `photos`. For numbers at the scale of papers: tiny_imagenet. bf16
where the hardware has it (1.8 times as fast with this network); the committed cells are all bf16.
Needs tiny-imagenet under data/ or $BENCH_DATA, prepared by `python -m bench.data prepare
tiny-imagenet` (a part of it with --partial: the first 20 training and 6 test images of a class are
used), and the network's weights as `photos` does. `python -m bench.grid tiny_imagenet_small --keep`
keeps a clone's tables where the hardware has bf16 and is refused elsewhere.
"""

_base_ = ["./_base_/photo_setting.py", "./_base_/photo_methods.py"]

reference = "hlgp"

order_seeds = [1, 2, 3]
seeds = [1]

data = dict(
    root="tiny-imagenet",
    split="official",
    tasks=10,
    decode=64,  # 64 is all there is
    train_per_class=20,
    test_per_class=6,
)
train = dict(epochs=2, precision="auto")
benchmarks = dict(_delete_=True, **{"tiny-imagenet-10": dict()})

found = {
    "hlgp": 0.0003,
    "l2p": 0.0015,
    "l2p++": 0.03,
    "dualprompt": 0.0015,
    "coda-prompt": 0.0015,
    "hlgp-independent": 0.03,
    "deep-l2p++": 0.006,
    "oneprompt": 0.03,
    "finetune": 0.0000075,
    "joint-prompt": 0.03,
}
methods = {name: dict(train=dict(prompt_lr=rate)) for name, rate in found.items()}
del found
