"""Gradient-space diversity for fine-tuning data (arXiv 2505.20161).

Importing the package is cheap (no torch, no datasets) and makes `evaluate.load("g_vendi")` work, see `registration`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import registration


if TYPE_CHECKING:
    from .clustering import SphericalKMeans as SphericalKMeans
    from .comparison import compare as compare
    from .featurizer import GradientFeaturizer as GradientFeaturizer
    from .hub import load_features as load_features
    from .hub import push_features as push_features
    from .proxy import ProxyModel as ProxyModel
    from .runner import featurize as featurize
    from .selection import select as select
    from .synthesis import PrismaticSynthesizer as PrismaticSynthesizer
    from .tasks.math import MathTask as MathTask
    from .tasks.nli import NLITask as NLITask
    from .vendi import Covariance as Covariance
    from .vendi import g_vendi as g_vendi

__version__ = "0.1.0"

_HOMES = {  # public name -> the module it lives in, imported on first use
    "Covariance": "vendi",
    "GradientFeaturizer": "featurizer",
    "MathTask": "tasks.math",
    "NLITask": "tasks.nli",
    "PrismaticSynthesizer": "synthesis",
    "ProxyModel": "proxy",
    "SphericalKMeans": "clustering",
    "compare": "comparison",
    "featurize": "runner",
    "g_vendi": "vendi",
    "load_features": "hub",
    "push_features": "hub",
    "select": "selection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_prism' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    globals()[name] = value = getattr(import_module(f"hf_prism.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


try:
    registration.register()
except OSError:
    # A read-only or full home must not break the import. Then evaluate cannot keep its modules there either and names
    # the folder; `hf_prism.registration.register()` shows this error.
    pass
