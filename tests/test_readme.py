"""The README's snippet about choosing runs as written, on a small pool and the embedded proxy."""

import json
import re
from pathlib import Path

from hf_prism.tasks.procedural import generate


README = Path(__file__).parents[1] / "README.md"


def test_the_snippet_that_chooses_and_compares_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in generate(40)))
    snippet = next(
        code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "select(" in code
    )
    assert snippet.count("1000") == 1 and snippet.count("GradientFeaturizer()") == 1
    names: dict = {}
    exec(
        snippet.replace("1000", "25").replace("GradientFeaturizer()", 'GradientFeaturizer("embedded", dim=64)'), names
    )
    assert len(names["subset"]) == 25 and "25 rows each" in capsys.readouterr().out
