"""HLGP against L2P, DualPrompt and CODA-Prompt on the paper's likely four benchmarks.

All reference rows, five class orders each. "Teaching Prompts to Coordinate: Hierarchical
Layer-Grouped Prompt Tuning for Continual Learning", arXiv 2511.12090. Its numbers: not available.
Published for others in this protocol (EASE, CVPR 2024, table 1; seed 1993, n = 1): see
imagenet_a_pilot and vtab_pilot. Protocol and choices: _base_/recipe_pilot.py. `python -m
bench.check paper` says what agrees.

Not run by this project: no GPU. Command: ./run_all.sh paper --device cuda
Cost: at least 7,377 PFLOP, 116,466,071 forward passes (--dry-run), without
training on VTAB, whose number of training images is unknown here
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"
