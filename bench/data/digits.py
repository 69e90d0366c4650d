"""The embedded digits: the 1,797 images of scikit-learn's load_digits, as a file of this project.

They are the test set of "Optical Recognition of Handwritten Digits" (UCI; Alpaydin and Kaynak
1998, CC BY 4.0). See LICENSE. bench/assets/digits.npz was written once, by

    digits = sklearn.datasets.load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    np.savez_compressed("bench/assets/digits.npz", images=images, labels=labels)
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

from bench.errors import UsageError

ASSET = Path(__file__).parent.parent / "assets" / "digits.npz"
ASSET_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
MAX_GREY = 16


@functools.cache
def asset() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) uint8 in 0..16, labels (1797,) uint8.

    Raises UsageError if the file was altered.
    """
    try:
        with np.load(ASSET, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    except Exception:  # a broken archive fails in many ways
        digest = ""
    if digest != ASSET_SHA256:
        raise UsageError(
            f"{ASSET} is not the file this benchmark was made with (digest differs): restore it"
        )
    return images, labels
