"""The search behind the recipe of the embedded benchmarks: twelve settings for every row.

On classes that no benchmark uses (`glyphs-tune`: every style in every class), on validation images,
with a class order that no reported run uses. Rows are NAME@PROMPT_LR+HEAD_LR; the chosen setting of
a row is its highest FAA (results/tune, reports/tune), and stands in _base_/glyph_methods.py.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [11]
seeds = [11, 12]

data = dict(name="glyphs-tune", classes=60, tasks=3, evaluate="validation", test_per_class=20)
benchmarks = {"glyphs-tune": dict()}

prompt_rates = (0.003, 0.01, 0.03, 0.1)
head_rates = (0.006, 0.015, 0.04)
searched = {}
for name, row in _base_.methods.items():
    if name == "ncm":
        continue
    if name in ("linear", "linear-ncm", "joint-linear"):  # one rate only: twelve values of it
        pairs = [(0.0, 0.0005 * 1.5**step) for step in range(12)]
    else:
        scale = (
            0.005 if name.startswith("finetune") else 1.0
        )  # all weights of a network take smaller steps than a prompt
        pairs = [(rate * scale, head) for rate in prompt_rates for head in head_rates]
    for prompt, head in pairs:
        rates = dict(prompt_lr=prompt, head_lr=head)
        label = f"{name}@{prompt:.2g}+{head:.2g}"
        searched[label] = dict(row, train=dict(row.get("train", {}), **rates))
methods = dict(_delete_=True, **searched)
del searched, prompt_rates, head_rates, name, row, pairs, scale, prompt, head, rates, label
