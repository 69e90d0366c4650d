"""VTAB-CIL (arXiv 2303.07338), 5 tasks of 10 classes, HLGP's likely setting.

Zhou et al. One task per domain, not shuffled. Published (EASE, CVPR 2024, table 1; seed 1993, n =
1), accuracy over all test images seen, mean over the tasks / after the last: L2P 77.11 / 77.10,
DualPrompt 83.36 / 81.23, CODA-Prompt 83.90 / 83.02, SimpleCIL (here `ncm`) 85.99 / 84.38. In
LAMDA-PILOT a batch votes on L2P's prompts (exps/l2p.json) and DualPrompt mixes those of different
images: not compared. HLGP: not available. Protocol and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh vtab_pilot --device cuda
Cost: at least 54 PFLOP, 1,616,286 forward passes (--dry-run), without
training on VTAB, whose number of training images is unknown here
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

benchmarks = dict(_delete_=True, **{"vtab-5": _base_.benchmarks["vtab-5"]})
