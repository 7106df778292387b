"""G-Vendi: the diversity of fine-tuning data in gradient space (arXiv 2505.20161). The metric is in hf_prism."""

from hf_prism.metric import GVendi  # From: hf-prism


__all__ = ["GVendi"]
