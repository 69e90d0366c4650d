"""Split Tiny-ImageNet (Stanford CS231n), 10 tasks of 20 classes: train as distributed, val as test.

Published: none known to this project; HLGP: not available. Recipe: _base_/recipe_pilot.py; that it
is used here is our choice.

Not run by this project: no GPU. Command: ./run_all.sh tiny_imagenet --device cuda
Cost: 9,017 PFLOP, 139,418,920 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

data = dict(name="folder", root="tiny-imagenet", split="official", decode=64)  # 64 is all there is
benchmarks = dict(_delete_=True, **{"tiny-imagenet-10": dict(data=dict(tasks=10))})
