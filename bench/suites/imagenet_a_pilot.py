"""Split ImageNet-A (Hendrycks et al. 2021), 10 tasks of 20 classes: HLGP's likely setting.

Published (EASE, CVPR 2024, table 1; seed 1993, n = 1), accuracy over all test images seen, mean
over the tasks / after the last: L2P 49.39 / 41.71, DualPrompt 53.71 / 41.67, CODA-Prompt 53.54 /
42.73, SimpleCIL (here `ncm`) 59.77 / 48.91. In LAMDA-PILOT a batch votes on L2P's prompts
(exps/l2p.json) and DualPrompt mixes those of different images: not compared. HLGP: not available.
Protocol and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh imagenet_a_pilot --device cuda
Cost: 552 PFLOP, 8,711,945 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

benchmarks = dict(_delete_=True, **{"imagenet-a-10": _base_.benchmarks["imagenet-a-10"]})
