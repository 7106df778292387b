"""A proxy on the Hub is pinned to the commit that its revision stands for, over HTTP with the real clients."""

import json
import os
import subprocess
import sys

import datasets
from helpers import CHATML, save_tiny_model, tiny_tokenizer
from readonly_hub import serve


SCRIPT = """
import datasets, json, sys, hf_prism.featurizer as module
calls = []
original = module.GradientFeaturizer.featurize_rows
module.GradientFeaturizer.featurize_rows = lambda self, rows: (calls.append(len(rows)), original(self, rows))[1]
featurizer = module.GradientFeaturizer("user/proxy", revision=json.loads(sys.argv[2]), dim=64)
ds = datasets.load_from_disk(sys.argv[1]).map(featurizer, batched=True)
print(json.dumps([featurizer.identity["proxy.revision"], featurizer.feature_id, sum(calls), ds[0]["gradient"]]))
"""


def test_revision_is_resolved_to_its_commit_and_another_one_misses_the_cache(tmp_path):
    for seed, name in enumerate(("main", "v2")):
        save_tiny_model(tmp_path / name, "qwen2", tokenizer=tiny_tokenizer(chat_template=CHATML), seed=seed)
    data = tmp_path / "data"
    datasets.Dataset.from_list([{"prompt": "How many clips?", "completion": "48 clips"}] * 3).save_to_disk(data)
    with serve("user/proxy", {"main": tmp_path / "main", "v2": tmp_path / "v2"}) as (endpoint, commits):
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }

        def run(revision):
            arguments = [sys.executable, "-c", SCRIPT, str(data), json.dumps(revision)]
            done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout.splitlines()[-1])

        default, second = run(None), run("v2")
        assert (default[0], second[0]) == (commits["main"], commits["v2"])
        assert default[1] != second[1] and default[3] != second[3]
        assert (default[2], second[2]) == (3, 3)
        by_commit = run(commits["main"])
        assert by_commit[:2] == default[:2] and by_commit[2] == 0  # the same commit: from the cache
        missing = [sys.executable, "-c", SCRIPT, str(data), json.dumps("no-such-branch")]
        failed = subprocess.run(missing, capture_output=True, text=True, env=environment)
        assert failed.returncode == 1 and "no-such-branch" in failed.stderr
