"""The rows that came after suite `tune`, with the best of twelve settings each (suite `tune_more`).

All but VQ-Prompt are at an edge of their grid: the prompts of CAPrompt and OVOR at its highest
rate, those of VPT-NSP2 at its lowest, with the lower of two rates for the head, SLCA's network at
its highest, and RanPAC has the largest of twelve projections. The control of VPT-NSP2 has its
rates, and so has OVOR with outliers as in the paper.
"""

_base_ = ["./glyph_methods.py"]

nsp = dict(type="nsp", model=dict(temperature=1.0), train=dict(prompt_lr=0.01, head_lr=0.015))
ovor = dict(type="ovor", model=dict(epochs=1, lr=0.015), train=dict(prompt_lr=0.1, head_lr=0.015))
methods = {
    "caprompt": dict(type="caprompt", train=dict(prompt_lr=0.1, head_lr=0.015)),
    "vq-prompt": dict(type="vq_prompt", train=dict(prompt_lr=0.03, head_lr=0.015)),
    "nsp": nsp,
    "nsp-control": dict(nsp, model=dict(temperature=1.0, control=True)),
    "ovor": ovor,
    "ovor-paper": dict(ovor, model=dict(epochs=1, lr=0.015, outliers="paper")),
    "slca": dict(
        type="slca",
        train=dict(optimiser="sgd", weight_decay=0.0005, prompt_lr=0.003, head_lr=0.03),
    ),
    "ranpac": dict(type="ranpac", model=dict(projection=4000)),
}
del nsp, ovor
