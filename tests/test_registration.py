"""`import hf_prism` is light, never fails, and makes the metric known to evaluate's module cache."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from importlib.resources import files
from pathlib import Path

import pytest
from test_metric import textbook

import hf_prism
from hf_prism import registration


SHIM_NAME = "g_vendi.py"
SPACE_SHIM = Path(__file__).parents[1] / "metrics" / "g_vendi" / SHIM_NAME


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty module cache of this test's own."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "modules"


def run_python(code: str, cwd: Path, stdin: str = "", **env: str) -> str:
    """Standard output of `code` in a new process that has nothing of ours but the installed package."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "PYTHON"))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=cwd, env=keep | env, input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy(tmp_path):
    code = "import sys, hf_prism; print([m for m in sys.modules if m in set(sys.argv[1:])])"
    heavy = "torch numpy datasets evaluate transformers pyarrow huggingface_hub matplotlib".split()
    loaded = run_python(f"import sys; sys.argv += {heavy}\n{code}", tmp_path, HOME=str(tmp_path))
    assert loaded.strip() == "[]"


def test_every_lazy_name_is_what_its_module_defines():
    assert set(hf_prism._HOMES) <= set(dir(hf_prism))
    for name, home in hf_prism._HOMES.items():
        assert getattr(hf_prism, name) is getattr(importlib.import_module(f"hf_prism.{home}"), name)
    with pytest.raises(AttributeError, match="no attribute 'g_vendy'"):
        _ = hf_prism.g_vendy


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": ""},
        {"HF_MODULES_CACHE": "/modules", "HF_HOME": "/hf"},
        {"HF_MODULES_CACHE": "~/modules"},
        {"HF_MODULES_CACHE": ""},
    ],
    ids=str,
)
def test_cache_is_where_evaluate_looks(env, monkeypatch):
    for name in ("HF_HOME", "HF_MODULES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.find_spec("evaluate.config")
    assert spec is not None and spec.loader is not None
    config = importlib.util.module_from_spec(spec)  # evaluate's own reading of this environment
    spec.loader.exec_module(config)
    assert registration._modules_cache() == config.HF_MODULES_CACHE


def test_layout_is_what_evaluate_writes_itself(cache, tmp_path, monkeypatch):
    from datasets import DownloadMode
    from evaluate.loading import _create_importable_file, init_dynamic_modules

    registration.register()
    theirs = tmp_path / "theirs"
    monkeypatch.setattr(sys, "path", sys.path[:])  # evaluate adds the folder
    modules = init_dynamic_modules(hf_modules_cache=theirs)
    mode = DownloadMode.REUSE_DATASET_IF_EXISTS
    _create_importable_file(str(SPACE_SHIM), [], [], modules, "metrics", "evaluate-metric/g_vendi", mode)
    assert _sources(cache) == _sources(theirs)


def _sources(cache: Path) -> list[str]:
    """The Python files, with the 64 characters of the folder that stands for the content left out."""
    paths = [p.relative_to(cache) for p in cache.rglob("*.py")]
    return sorted("/".join("HASH" if len(part) == 64 else part for part in p.parts) for p in paths)


def test_shim_of_the_space_is_the_registered_one(cache):
    assert SPACE_SHIM.read_bytes() == registration.register().read_bytes() == registration.SHIM


def test_second_registration_writes_nothing(cache):
    shim = registration.register()
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*")}
    assert registration.register() == shim
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*")} == before


def test_registered_shim_stays_the_newest(cache):
    shim = registration.register()
    other = shim.parent.with_name("0" * 64) / SHIM_NAME
    other.parent.mkdir()
    other.write_text("raise ImportError('an older version')")
    os.utime(shim, (1, 1))
    registration.register()
    assert max((shim, other), key=lambda p: p.stat().st_mtime_ns) == shim


@pytest.mark.parametrize("damage", ["cut", "gone", "folder empty"])
def test_damaged_registration_is_repaired(cache, damage):
    shim = registration.register()
    if damage == "cut":
        shim.write_bytes(registration.SHIM[:40])
    else:
        shim.unlink()
    if damage == "folder empty":
        (shim.parent / "__init__.py").unlink()
    assert registration.register().read_bytes() == registration.SHIM
    assert not list(shim.parent.parent.glob(".draft*"))


def test_sixteen_first_imports_at_once_leave_one_good_module(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(tmp_path)
    }
    command = [
        sys.executable,
        "-c",
        "from hf_prism import registration as r; print(r.register().read_bytes() == r.SHIM)",
    ]
    processes = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(16)]
    assert [p.communicate(timeout=120)[0].strip() for p in processes] == ["True"] * 16
    metric = tmp_path / "modules/evaluate_modules/metrics/evaluate-metric--g_vendi"
    folders = [p.name for p in metric.iterdir() if p.name != "__init__.py"]
    assert len(folders) == 1 and len(folders[0]) == 64


@pytest.mark.parametrize("obstacle", ["a file", "dev full", "no home"])
def test_import_works_where_the_cache_cannot_be_written(tmp_path, obstacle):
    blocked = tmp_path / "blocked"
    blocked.touch()
    home = {"a file": str(blocked), "dev full": "/dev/full", "no home": "/proc/nowhere"}[obstacle]
    code = """
        import hf_prism
        try:
            hf_prism.registration.register()
        except OSError as error:
            print("register says", error.strerror)
        print(hf_prism.__version__)
    """
    out = run_python(code, tmp_path, HF_HOME=home)
    assert "register says" in out and out.strip().endswith("0.1.0")


def test_import_works_with_a_read_only_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    out = run_python(
        f"""
        import os, hf_prism
        statements = hf_prism.__spec__.loader.get_code("hf_prism")
        os.environ["HF_HOME"] = {str(home)!r}
        if os.geteuid() == 0:
            os.seteuid(65534)  # to root every folder is writable
        exec(statements, vars(hf_prism))
        try:
            hf_prism.registration.register()
        except PermissionError:
            print("refused")
        """,
        tmp_path,
        HF_HOME=str(tmp_path / "other"),
    )
    assert out.strip() == "refused" and not list(home.iterdir())


LOAD = """
    import json, sys
    {first}
    import evaluate
    inputs = json.load(sys.stdin)
    metric = evaluate.load("g_vendi")
    results = [metric.compute(**each) for each in inputs]
    print(json.dumps([metric.name, metric.inputs_description, [result["g_vendi"] for result in results]]))
"""
GRADIENTS = [[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 9.0]]
PROMPTS, COMPLETIONS = ["What is 2 + 3?", "What is 7 - 4?", "Continue 2, 4, 8."], ["5", "3", "16"]


@pytest.mark.parametrize("imported", [True, False], ids=["after import hf_prism", "without importing hf_prism"])
def test_evaluate_loads_the_metric_offline_from_an_empty_folder(tmp_path, imported):
    folder = tmp_path / "empty"
    folder.mkdir()
    inputs, expected = [{"gradients": GRADIENTS}], [textbook(GRADIENTS)]
    if imported and files("hf_prism").joinpath("embedded", "config.json").is_file():
        inputs.append({"prompts": PROMPTS, "completions": COMPLETIONS, "model_id": "embedded"})
        vectors = hf_prism.GradientFeaturizer("embedded")({"prompt": PROMPTS, "completion": COMPLETIONS})["gradient"]
        expected.append(textbook(vectors))
    # Port 9 refuses at once, as where there is no network. evaluate has its own switch to not even try.
    env = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    if not imported:
        run_python("import hf_prism", folder, **env)
        env["HF_EVALUATE_OFFLINE"] = "1"
    first = "import hf_prism" if imported else "assert 'hf_prism' not in sys.modules"
    name, usage, scores = json.loads(run_python(LOAD.format(first=first), folder, json.dumps(inputs), **env))
    assert name == "g_vendi" and "gradients:" in usage
    assert scores == pytest.approx(expected, rel=1e-5)
