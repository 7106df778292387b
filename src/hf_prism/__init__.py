"""Gradient-space diversity for fine-tuning data (arXiv 2505.20161)."""

__version__ = "0.1.0"
