"""Pretrain the embedded ViT: `python -m bench.pretrain`. No benchmark uses its 1,000 classes.

The network has twelve blocks of width 96, patch 8 and three heads. It sees plain images only, each
once: the renderer makes a new image for every number. Recipe: fan-in initialisation, position
embedding with std 0.5, AdamW 1e-3, warm-up, cosine, batch 128, label smoothing 0.1, and an
auxiliary loss that predicts the glyph's mask from the class token. Without the auxiliary loss, or
with inputs left in [0, 1], such a small network stays at chance for long.
Deterministic on one machine with one thread count. The digest of the committed weights is in their
recipe.
"""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from bench import cli
from bench.backbone.vit import GLYPH_WEIGHTS, FrozenViT, build_vit, run_vit, weights_digest
from bench.config.spec import BackboneSpec
from bench.data import glyphs
from bench.errors import UsageError
from bench.store.files import write_bytes, write_text

PEAK_LEARNING_RATE = 1e-3
WARM_UP_STEPS = 200
STEPS_PER_LOG_LINE = 100
MASK_SIDE = 16  # pixels of the mask that the auxiliary head predicts
# Weight of the auxiliary loss. With 1 the network stayed at chance for 2,400 steps: the class token
# learns the mask first.
MASK_WEIGHT = 20.0
MEAN, STD = 0.5, 0.25  # of the inputs in pretraining; at the end the patch embedding takes them in


def initialise(vit: Any) -> None:
    """Fan-in normal for matrices, std 0.5 for positions and the class token.

    So signals keep their size through twelve narrow blocks.
    """
    for name, parameter in vit.named_parameters():
        embeds = "embed" in name.split(".")[0] or "token" in name
        if (parameter.dim() >= 2 and not embeds) or name == "patch_embed.proj.weight":
            nn.init.trunc_normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    nn.init.trunc_normal_(vit.pos_embed, std=0.5)
    nn.init.trunc_normal_(vit.cls_token, std=0.5)


def fold_scaling(vit: Any) -> None:
    """Let the patch embedding take inputs in [0, 1].

    W((x - m) / s) + b = (W / s) x + (b - sum(W) m / s).
    """
    project = vit.patch_embed.proj
    with torch.no_grad():
        project.bias -= project.weight.sum((1, 2, 3)) * (MEAN / STD)
        project.weight /= STD


def batch_of(step: int, size: int, seed: int, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 32, 32, 3) uint8, labels (B,) and masks (B, 256) in 0..1 of one step.

    A pure function of (seed, step). rows: the asset's rows of the classes.
    """
    rng = np.random.default_rng([seed, step])
    labels = rng.integers(len(rows), size=size)
    images, cover = glyphs.render_with_coverage(seed, rows[labels], step * size + np.arange(size))
    cells = cover.reshape(size, MASK_SIDE, 32 // MASK_SIDE, MASK_SIDE, 32 // MASK_SIDE)
    masks = cells.mean((2, 4)).reshape(size, -1)
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(masks)


def class_mean_accuracy(vit: Any, style: tuple[str, ...]) -> float:
    """Quality of the features: accuracy in percent of the nearest class mean (cosine).

    On 24 images of each of 120 tuning classes; a class mean is over 32 other images.
    """
    frozen = FrozenViT(vit)
    rows = glyphs.classes_of(glyphs.TUNE)[:120]

    def features(first: int, count: int) -> Tensor:
        index = np.tile(np.arange(first, first + count), len(rows))
        styles = np.array(style)[index % len(style)]
        images = torch.from_numpy(glyphs.render(0, np.repeat(rows, count), index, styles))
        with torch.inference_mode():
            tokens = [frozen.cls(frozen.normalise(block)) for block in images.split(500)]
        return F.normalize(torch.cat(tokens), dim=1).view(len(rows), count, -1)

    means = F.normalize(features(0, 32).mean(1), dim=1)
    found = (features(32, 24) @ means.T).argmax(-1)
    return 100 * (found == torch.arange(len(rows))[:, None]).float().mean().item()


def pretrain(steps: int, batch: int, seed: int, precision: str, log: Path) -> nn.Module:
    """Run the recipe and return the network. Every 100 steps one line is logged and printed."""
    torch.manual_seed(seed)
    spec = BackboneSpec()
    vit = build_vit(spec).train()
    initialise(vit)
    rows = glyphs.classes_of(glyphs.PRETRAIN)
    head = nn.Linear(spec.width, len(rows))
    mask_head = nn.Linear(spec.width, MASK_SIDE * MASK_SIDE)
    parameters = [*vit.parameters(), *head.parameters(), *mask_head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    start, means = time.monotonic(), [0.0, 0.0, 0.0]
    lines: list[str] = []
    write_text(log, "")  # an error for a read-only folder comes now, not after the last step
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * min((step + 1) / WARM_UP_STEPS, cosine)
        images, labels, masks = batch_of(step, batch, seed, rows)
        inputs = (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
        token = run_vit(vit, inputs, precision=precision, rows=1)[:, 0]
        logits = head(token)
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        aux = F.binary_cross_entropy_with_logits(mask_head(token), masks)
        optimiser.zero_grad(set_to_none=True)
        (loss + MASK_WEIGHT * aux).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        hits = (logits.argmax(1) == labels).float().mean().item()
        values = (loss.item(), aux.item(), hits)
        means = [a + b / STEPS_PER_LOG_LINE for a, b in zip(means, values, strict=True)]
        if (step + 1) % STEPS_PER_LOG_LINE == 0:
            seconds = time.monotonic() - start
            lines.append(
                f"step {step + 1} loss {means[0]:.3f} mask {means[1]:.3f} "
                f"accuracy {100 * means[2]:.1f} seconds {seconds:.0f}"
            )
            print(lines[-1], flush=True)
            write_text(log, "\n".join(lines) + "\n")
            means = [0.0, 0.0, 0.0]
    fold_scaling(vit)
    return vit.eval()


def main() -> int:
    parser = cli.Parser(
        prog="python -m bench.pretrain",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--steps", type=cli.positive, default=2400)
    parser.add_argument("--batch", type=cli.positive, default=128)
    parser.add_argument("--seed", type=cli.seed, default=2511)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=cli.positive, default=1)
    out_help = "a .safetensors file; log and recipe go beside it"
    parser.add_argument("--out", type=cli.folder, default=GLYPH_WEIGHTS, help=out_help)
    args = parser.parse_args()
    if args.out.suffix != ".safetensors" or args.out.is_dir():
        raise UsageError(f"--out={args.out}: a .safetensors file is expected")
    torch.set_num_threads(args.threads)
    vit = pretrain(args.steps, args.batch, args.seed, args.precision, args.out.with_suffix(".log"))
    state = {name: value.half().contiguous() for name, value in vit.state_dict().items()}
    write_bytes(args.out, save(state))
    # The file is fp16: measure the weights that will be read from it.
    vit.load_state_dict({name: value.float() for name, value in state.items()})
    styles = {"plain": ("plain",), "renditions": glyphs.RENDITIONS, "faint": ("faint",)}
    quality = {name: round(class_mean_accuracy(vit, style), 1) for name, style in styles.items()}
    recipe = {
        **{key: getattr(args, key) for key in ("steps", "batch", "seed", "precision", "threads")},
        "classes": 1000,
        "class_mean_accuracy_on_120_tuning_classes": quality,
        "weights_sha256": weights_digest(vit),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write_text(args.out.with_suffix(".json"), json.dumps(recipe, indent=2) + "\n")
    print(json.dumps(recipe))
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
