"""All methods and the references on a small split, a minute or two on two cores: the regression check.

Run by `python -m bench.check smoke`, which compares with bench/expected/smoke.csv. One style, few classes and many steps: here
prompts gain about five points with the task known, several times the spread between seeds, so it shows whether they are
inserted, selected and trained as they were when the expected values were measured; not which method is better. HLGP has a
lower rate than in `mini`, at which one seed in ten is lost on so few images.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [1, 2, 3]
seeds = [1, 2, 3]

data = dict(name="glyphs-relief", classes=30, tasks=2, evaluate="validation", test_per_class=25)
train = dict(epochs=8)
benchmarks = {"glyphs-relief": dict(methods={"hlgp": dict(train=dict(prompt_lr=0.01))})}
methods = dict(_delete_=True, **{name: row for name, row in _base_.methods.items() if not name.startswith("joint")})
