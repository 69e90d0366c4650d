"""Split ImageNet-R (Hendrycks et al. 2021), 10 tasks of 20 classes: HLGP's likely setting.

Published in this protocol for 40 tasks only (EASE, CVPR 2024, table 1): nothing to compare with.
HLGP: not available. Protocol and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh imagenet_r_pilot --device cuda
Cost: 2,158 PFLOP, 33,302,910 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

benchmarks = dict(_delete_=True, **{"imagenet-r-10": _base_.benchmarks["imagenet-r-10"]})
