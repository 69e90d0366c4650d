"""Pretrain the embedded ViT on the 1,000 glyph classes that no benchmark uses: `python -m bench.pretrain`.

Twelve blocks of width 96, patch 8, three heads. Plain images only, each seen once (an endless supply: the renderer
is a function of the image number). Recipe: fan-in initialisation, position embedding with std 0.5, AdamW 1e-3,
warm-up, cosine, batch 128, label smoothing 0.1, and an auxiliary loss that predicts the glyph's mask from the class
token. Without the auxiliary loss, or with inputs left in [0, 1], such a small network stays at chance for long.
Deterministic for one machine and thread count; the committed weights carry their own digest.
"""

from __future__ import annotations

import argparse
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

SMALL = 16  # side of the mask that the auxiliary head predicts
MASK_WEIGHT = 20.0  # with 1 the network stayed at chance for 2,400 steps: the mask is what first reaches the class token
MEAN, STD = (
    0.5,
    0.25,
)  # input scaling during pretraining, folded into the patch embedding at the end


def initialise(vit: Any) -> None:
    """Fan-in normal for matrices, std 0.5 for positions: signals keep their size through twelve thin blocks."""
    for name, parameter in vit.named_parameters():
        if (
            parameter.dim() >= 2 and "embed" not in name.split(".")[0] and "token" not in name
        ) or name == "patch_embed.proj.weight":
            nn.init.trunc_normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    nn.init.trunc_normal_(vit.pos_embed, std=0.5)
    nn.init.trunc_normal_(vit.cls_token, std=0.5)


def fold_scaling(vit: Any) -> None:
    """Let the patch embedding take inputs in [0, 1]: W((x - m) / s) + b = (W / s) x + (b - sum(W) m / s)."""
    project = vit.patch_embed.proj
    with torch.no_grad():
        project.bias -= project.weight.sum((1, 2, 3)) * (MEAN / STD)
        project.weight /= STD


def batch_of(step: int, size: int, seed: int, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 32, 32, 3) uint8, labels (B,), masks (B, 256) in 0..1 of one step: a pure function of (seed, step)."""
    rng = np.random.default_rng([seed, step])
    labels = rng.integers(len(rows), size=size)
    images, cover = glyphs.render_with_coverage(seed, rows[labels], step * size + np.arange(size))
    small = (
        cover.reshape(size, SMALL, 32 // SMALL, SMALL, 32 // SMALL).mean((2, 4)).reshape(size, -1)
    )
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(small)


def class_mean_accuracy(vit: Any, style: tuple[str, ...]) -> float:
    """Percent of tuning-class images nearest (cosine) to their class's mean over 32 others: the quality of features."""
    frozen = FrozenViT(vit)
    rows = glyphs.classes_of(glyphs.TUNE)[:120]

    def features(first: int, count: int) -> Tensor:
        which, index = np.repeat(rows, count), np.tile(np.arange(first, first + count), len(rows))
        styles = np.array(style)[index % len(style)]
        images = torch.from_numpy(glyphs.render(0, which, index, styles))
        with torch.inference_mode():
            parts = [frozen.cls(frozen.normalise(part)) for part in images.split(500)]
        return F.normalize(torch.cat(parts), dim=1).view(len(rows), count, -1)

    means = F.normalize(features(0, 32).mean(1), dim=1)
    found = (features(32, 24) @ means.T).argmax(-1)
    return 100 * (found == torch.arange(len(rows))[:, None]).float().mean().item()


def pretrain(steps: int, batch: int, seed: int, precision: str, log: Path) -> nn.Module:
    """Run the recipe and return the network; one line per 100 steps goes to the log and to the screen."""
    torch.manual_seed(seed)
    spec = BackboneSpec()
    vit = build_vit(spec).train()
    initialise(vit)
    rows = glyphs.classes_of(glyphs.PRETRAIN)
    head = nn.Linear(spec.width, len(rows))
    mask_head = nn.Linear(spec.width, SMALL * SMALL)
    parameters = [*vit.parameters(), *head.parameters(), *mask_head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    start, seen = time.monotonic(), [0.0, 0.0, 0.0]
    lines: list[str] = []
    write_text(log, "")  # a folder that cannot be written is found now, not after the last step
    for step in range(steps):
        rate = min((step + 1) / 200, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * rate
        images, labels, masks = batch_of(step, batch, seed, rows)
        token = run_vit(
            vit,
            (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD,
            precision=precision,
            rows=1,
        )[:, 0]
        logits = head(token)
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        aux = F.binary_cross_entropy_with_logits(mask_head(token), masks)
        optimiser.zero_grad(set_to_none=True)
        (loss + MASK_WEIGHT * aux).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        hits = (logits.argmax(1) == labels).float().mean().item()
        seen = [a + b / 100 for a, b in zip(seen, (loss.item(), aux.item(), hits), strict=True)]
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - start
            lines.append(
                f"step {step + 1} loss {seen[0]:.3f} mask {seen[1]:.3f} accuracy {100 * seen[2]:.1f} seconds {seconds:.0f}"
            )
            print(lines[-1], flush=True)
            write_text(log, "\n".join(lines) + "\n")
            seen = [0.0, 0.0, 0.0]
    fold_scaling(vit)
    return vit.eval()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pretrain", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--steps", type=cli.positive, default=2400)
    parser.add_argument("--batch", type=cli.positive, default=128)
    parser.add_argument("--seed", type=cli.seed, default=2511)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=cli.positive, default=1)
    parser.add_argument(
        "--out",
        type=Path,
        default=GLYPH_WEIGHTS,
        help="a .safetensors file; log and recipe go beside it",
    )
    args = parser.parse_args()
    if args.out.suffix != ".safetensors" or args.out.is_dir():
        raise UsageError(f"--out={args.out}: a .safetensors file is expected")
    torch.set_num_threads(args.threads)
    vit = pretrain(args.steps, args.batch, args.seed, args.precision, args.out.with_suffix(".log"))
    state = {name: value.half().contiguous() for name, value in vit.state_dict().items()}
    write_bytes(args.out, save(state))
    vit.load_state_dict(
        {name: value.float() for name, value in state.items()}
    )  # what will be read back
    quality = {
        name: round(class_mean_accuracy(vit, style), 1)
        for name, style in (
            ("plain", ("plain",)),
            ("renditions", glyphs.RENDITIONS),
            ("faint", ("faint",)),
        )
    }
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
