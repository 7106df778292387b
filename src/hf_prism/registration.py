"""Makes `evaluate.load("g_vendi")` find the metric, from any folder and without network.

evaluate has no plugin mechanism: it looks in the working directory, then on the Hub, then in its module cache, where
the newest module of a name wins. So the shim below is written into that cache, in the layout evaluate itself writes.
Only the standard library is imported here, because `import hf_prism` runs this.
"""

import os
from hashlib import sha256
from pathlib import Path


# Also the file of the Space, metrics/g_vendi/g_vendi.py. It says nothing but where the metric lives, so that a cached
# copy cannot go out of date. The comment on the import is what evaluate tells people without the package to install.
SHIM = b'''"""G-Vendi: the diversity of fine-tuning data in gradient space (arXiv 2505.20161). The metric is in hf_prism."""

from hf_prism.metric import GVendi  # From: hf-prism


__all__ = ["GVendi"]
'''


def register() -> Path:
    """Writes the metric's shim into evaluate's module cache, or does nothing where it already is the newest there.

    Any number of processes may do this at the same time: what they write is equal and appears in one step.

    Returns:
        The file evaluate will load.

    Raises:
        OSError: the cache can neither be read nor written (read-only home, full disk). Set HF_MODULES_CACHE to a folder
            that can be written.

    Example:
        >>> register().name
        'g_vendi.py'
    """
    metric = _modules_cache() / "evaluate_modules" / "metrics" / "evaluate-metric--g_vendi"
    shim = metric / sha256(SHIM).hexdigest() / "g_vendi.py"
    if not _holds(shim):
        _write(shim)
    _make_newest(shim)
    return shim


def _modules_cache() -> Path:
    """The folder of evaluate 0.4's config.HF_MODULES_CACHE, without importing evaluate (seconds)."""
    cache_home = os.getenv("XDG_CACHE_HOME", "~/.cache")
    hf_home = os.path.expanduser(os.getenv("HF_HOME", os.path.join(cache_home, "huggingface")))
    return Path(os.getenv("HF_MODULES_CACHE", os.path.join(hf_home, "modules")))


def _holds(shim: Path) -> bool:
    try:
        return shim.read_bytes() == SHIM
    except FileNotFoundError:
        return False


def _write(shim: Path) -> None:
    import shutil  # 5 ms, needed once

    shim.parent.parent.mkdir(parents=True, exist_ok=True)
    for package in list(shim.parents)[1:5]:  # the metric, metrics, evaluate_modules, the cache itself
        if not (package / "__init__.py").exists():
            (package / "__init__.py").touch()
    # A folder without its shim, which a kill in between would leave, makes every later evaluate.load fail. So the
    # folder is filled under a name that evaluate passes over, and renamed.
    draft = shim.parent.with_name(f".draft-{os.urandom(6).hex()}")
    try:
        draft.mkdir()
        (draft / "__init__.py").touch()
        (draft / shim.name).write_bytes(SHIM)
        try:
            draft.rename(shim.parent)
        except OSError:  # the folder is there: another process was first, or left it damaged
            (draft / shim.name).replace(shim)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _make_newest(shim: Path) -> None:
    """evaluate loads the newest module of a name; others come from the Hub or from an older version of this package."""
    others = (f for f in shim.parent.parent.glob(f"{'?' * 64}/{shim.name}") if f != shim)
    if any(f.stat().st_mtime >= shim.stat().st_mtime for f in others):
        os.utime(shim)
