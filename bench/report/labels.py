"""Names of rows for people, in the order in which rows of several suites stand."""

from __future__ import annotations

LABELS = {
    "hlgp": "HLGP (reconstructed)",
    "hlgp-independent": "independent prompts",
    "l2p": "L2P",
    "l2p++": "L2P++",
    "deep-l2p++": "deep L2P++",
    "dualprompt": "DualPrompt",
    "coda-prompt": "CODA-Prompt",
    "oneprompt": "one prompt (OnePrompt)",
    "linear": "linear",
    "ncm": "class means (NCM)",
    "linear-ncm": "linear + NCM routing",
    "finetune++": "fine-tuning, masked loss (FT++)",
    "finetune": "fine-tuning",
    "joint-linear": "joint, linear head",
    "joint-prompt": "joint, prompts",
}


def label(method: str) -> str:
    """A row's name for people; a method that is not listed keeps its own."""
    return LABELS.get(method, method)
