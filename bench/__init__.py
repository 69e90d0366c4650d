"""A continual-learning benchmark: HLGP, L2P, DualPrompt and CODA-Prompt from one runner."""

__version__ = "0.1.0"
