"""Split CIFAR-100 (Krizhevsky 2009), 10 tasks of 10 classes: HLGP's likely setting.

Published in this protocol for 20 tasks only (EASE, CVPR 2024, table 1): nothing to compare with.
HLGP: not available. Protocol and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh cifar100_pilot --device cuda
Cost: 4,466 PFLOP, 68,468,910 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

benchmarks = dict(_delete_=True, **{"cifar100-10": _base_.benchmarks["cifar100-10"]})
