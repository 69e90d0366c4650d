"""Deep L2P++: L2P++ with a pool and keys of its own in each of blocks 0-4.

Official code: GT-RIPL/CODA-Prompt, models/zoo.py::L2P, the form "deep". Everything else, deviations
included, is in l2p_plus.py.
"""

from __future__ import annotations

from bench.backbone.vit import FrozenViT
from bench.method import register
from methods.l2p_plus import L2PPlus


@register
class DeepL2P(L2PPlus):
    """The settings of l2p_plus; only the default of layers differs."""

    def __init__(
        self,
        backbone: FrozenViT,
        classes: int,
        tasks: int,
        *,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
        pool: int = 30,
        length: int = 20,
        top_n: int = 5,
        key_loss: float = 1.0,
        init: tuple[float, ...] = (0.0, 1.0),
        reference_bug: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            classes,
            tasks,
            layers=layers,
            pool=pool,
            length=length,
            top_n=top_n,
            key_loss=key_loss,
            init=init,
            reference_bug=reference_bug,
        )
