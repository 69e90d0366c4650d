"""The search behind the recipe of the rows that came after suite `tune`: twelve settings for each.

On classes that no benchmark uses, on validation images, with a class order that no reported run
uses, as suite `tune`. Rows are NAME@PROMPT_LR+HEAD_LR; the chosen one has the highest final average
accuracy. RanPAC has no rate: ranpac@M is the size of its projection, where 0 is none. NSP has two
temperatures. SLCA's first rate is its network's, with SGD as in its paper. OVOR's second phase is
one epoch at the head's rate.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [11]
seeds = [11, 12]

data = dict(name="glyphs-tune", classes=60, tasks=3, evaluate="validation", test_per_class=20)
benchmarks = {"glyphs-tune": dict()}

sgd = dict(optimiser="sgd", weight_decay=0.0005)
searched = {
    f"ranpac@{size}": dict(type="ranpac", model=dict(projection=size))
    for size in (0, 100, 200, 300, 500, 700, 1000, 1400, 2000, 2500, 3000, 4000)
}
for head in (0.006, 0.015, 0.04):
    for prompt in (0.003, 0.01, 0.03, 0.1):
        rates = dict(prompt_lr=prompt, head_lr=head)
        both = f"{prompt:.2g}+{head:.2g}"
        searched[f"caprompt@{both}"] = dict(type="caprompt", train=rates)
        searched[f"vq-prompt@{both}"] = dict(type="vq_prompt", train=rates)
        second = dict(epochs=1, lr=head)
        searched[f"ovor@{both}"] = dict(type="ovor", model=second, train=rates)
for head in (0.015, 0.04):
    for prompt in (0.01, 0.03, 0.1):
        for temperature in (1.0, 28.0):
            searched[f"nsp@{prompt:.2g}+{head:.2g}_tau{temperature:.0f}"] = dict(
                type="nsp",
                model=dict(temperature=temperature),
                train=dict(prompt_lr=prompt, head_lr=head),
            )
for head in (0.01, 0.03, 0.1):
    for network in (0.0001, 0.0003, 0.001, 0.003):
        searched[f"slca@{network:.2g}+{head:.2g}"] = dict(
            type="slca", train=dict(sgd, prompt_lr=network, head_lr=head)
        )
methods = dict(_delete_=True, **searched)
del searched, sgd, head, prompt, network, rates, both, second, temperature
