"""Settings that hold for every test: one thread, no Hub."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest


# Read when the libraries are imported, so set before any test module imports them. A test that wants a Hub starts a
# subprocess with an environment of its own.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(autouse=True)
def no_process_state_is_left():
    """Libraries build Accelerate's singleton in passing; processes forked by a later test would inherit it."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.PartialState._reset_state()


@pytest.fixture(scope="module")
def study_script():
    """Imports a script of examples/study by its name."""
    folder = str(Path(__file__).parents[1] / "examples" / "study")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
