"""The real clients of the Hub in a process of their own, since they read its address when they are imported.

    with serve(tmp_path / "hub") as hub, Client(hub, tmp_path / "home") as client:
        assert client.run('return len(load_dataset("user/name", split="train"))') == 3

The process stays, and each test sends it the lines to run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from localhub import LocalHub


WORKER = """
import json, sys, traceback
for line in sys.stdin:
    try:
        names = {}
        exec(json.loads(line), names)
        told = {"value": names["run"]()}
    except Exception as error:
        told = {"type": type(error).__name__, "error": str(error), "trace": traceback.format_exc()}
    print("\\x1e" + json.dumps(told), flush=True)
"""

PRELUDE = """
import json
from pathlib import Path
import datasets
import numpy as np
from datasets import Dataset, Features, List, Value, load_dataset
from hf_prism import access, hub, pushing
from hf_prism.origin import Origin, origin_of

access.FIRST_WAIT, pushing.ROW_GROUP, pushing.SHARD_BYTES = 0.001, 100, 1  # 100 rows a file
ORIGIN = Origin("0123456789abcdef", {"dim": 16, "seed": 0, "proxy.model": "some/proxy", "proxy.revision": None})

def features(n=250, seed=0, d=16, origin=ORIGIN):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    columns = {"id": [f"row-{i}" for i in range(n)], "gradient": rows, "loss": [i / 7 for i in range(n)]}
    kinds = Features(id=Value("string"), gradient=List(Value("float32"), length=d), loss=Value("float32"))
    return origin.stamp(Dataset.from_dict(columns, features=kinds))
"""


class Failed(Exception):
    """What the other process raised: its type and text."""


class Client:
    """A process whose Hub is ours.

    Args:
        hub: The Hub.
        home: A folder for what its libraries keep.
        prelude: Python that stands before the lines of each test.
    """

    def __init__(self, hub: LocalHub, home: Path, prelude: str = PRELUDE):
        self.prelude = prelude
        with (home.parent / f"{home.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=hub.environment(home),
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        with self.process:  # waits, and closes the pipes
            pass

    def start(self, code: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(
            json.dumps(f"{self.prelude}\ndef run():\n{textwrap.indent(textwrap.dedent(code), '    ')}")
        )
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> Any:
        assert self.process.stdout
        told = json.loads(next(line for line in self.process.stdout if line.startswith("\x1e"))[1:])
        if "error" in told:
            raise Failed(f"{told['type']}: {told['error']}\n{told['trace']}")
        return told["value"]

    def run(self, code: str) -> Any:
        self.start(code)
        return self.finish()

    def error(self, code: str) -> str:
        """The text of the error, after its type."""
        with pytest.raises(Failed) as failed:
            self.run(code)
        return str(failed.value).split("\nTraceback")[0]
