"""HLGP's form, chosen on validation images: every switch of `ablation`, one at a time.

On the classes of suite `tune`. Its defaults (three groups, five rows, bottleneck 16, learned
positions, soft weights, copies) came from a prototype on other images; this says on images and
classes that no reported result uses what another choice would have brought.
"""

_base_ = ["./ablation.py"]

reference = "hlgp"
figure_rows = ["hlgp", "generator@*", "groups@*"]

order_seeds = [11]
seeds = [11, 12]
data = dict(name="glyphs-tune", classes=60, tasks=3, evaluate="validation", test_per_class=20)
benchmarks = dict(_delete_=True, **{"glyphs-tune": dict()})
