"""The `evaluate` metric g_vendi: gradients, or texts with a proxy, in; the score and what is needed to read it out.

`evaluate.load("g_vendi")` finds it once `import hf_prism` has run on the machine, see `registration`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from .vectors import unit_blocks
from .vendi import g_vendi


DESCRIPTION = """
G-Vendi measures how diverse fine-tuning data is in the eyes of a model that would learn from it: the exponential of the
entropy of the eigenvalues of the second moment of unit gradients of a small proxy model, one gradient a sample. It is
the effective number of independent learning directions, between 1 and min(n, d) (Jung et al., arXiv 2505.20161).
"""

INPUTS_DESCRIPTION = """
Give either gradients or texts; they do not mix.

Args:
    gradients: n vectors of d numbers (array, tensor, list of rows, column of a Dataset), one a sample, as made by
        `hf_prism.GradientFeaturizer`. Any length but zero; None rows are left out and counted.
    prompts, completions: n strings each. The gradient is that of the completion's loss given its prompt.
    ids: optional, n unique ids. They decide the groups of the interval; without them the rows' content does.
    order: order q of the Vendi score, above 0; 1 (default) is G-Vendi, also 0.5, 2, float("inf").
    feature_id: with gradients, the identity of what made them, carried into the result.
    model_id: with texts, the proxy, a causal language model: Hub id, folder, or "embedded" (shipped, no network).
        Default "Qwen/Qwen2.5-0.5B-Instruct".
    dim, seed, dtype, max_length, revision, device, on_long, ...: with texts, options of `hf_prism.GradientFeaturizer`.

Returns:
    g_vendi: the score, between 1 and min(n, dim).
    g_vendi_debiased: the score with the loss through the sketch taken out; None where no estimate is trustworthy.
    interval: [low, high], 95 % for the expected score of another sample of the same n (not of the population), or None.
    order, n, dim: what was computed, on how many rows of what width.
    saturation: g_vendi / min(n, dim). Near 1, n or dim limits the score more than the data does.
    feature_id: what made the gradients. Compare scores only at equal feature_id, equal n and equal dim.
    notes: what to know about this result, only if there is something.

Examples:
    >>> import evaluate, hf_prism
    >>> metric = evaluate.load("g_vendi")
    >>> result = metric.compute(gradients=[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> round(result["g_vendi"], 6)
    2.0
"""

CITATION = """\
@article{jung2025prismatic,
  title={Prismatic Synthesis: Gradient-based Data Diversification Boosts Generalization in LLM Reasoning},
  author={Jung, Jaehun and Han, Seungju and Lu, Ximing and Hallinan, Skyler and Acuna, David and Prabhumoye, Shrimai
    and Patwary, Mostofa and Shoeybi, Mohammad and Catanzaro, Bryan and Choi, Yejin},
  journal={arXiv preprint arXiv:2505.20161},
  year={2025}
}
"""

TYPES = {
    "gradients": List(Value("float32")),
    "prompts": Value("string"),
    "completions": Value("string"),
    "ids": Value("string"),
}
DEFAULTS = {"default": ["gradients"], "text": ["prompts", "completions"]}  # inputs by config, until some are given
TEXT_OPTIONS = [
    *("model_id", "revision", "dim", "seed", "dtype", "max_length", "chat_template", "on_long", "on_empty"),
    *("parameters", "device", "trust_remote_code"),
]


class GVendi(evaluate.Metric):
    """G-Vendi as an `evaluate` metric: `compute`, `add`, `add_batch`, `evaluate.combine`, several processes.

    `evaluate.load("g_vendi", "text")` differs only in what `evaluate.combine` takes it to ask for: texts.

    Example:
        >>> GVendi().compute(gradients=[[1.0, 0.0], [0.0, 1.0]])["n"]
        2
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in DEFAULTS:
            raise ValueError(
                f"g_vendi has no configuration {self.config_name!r}: choose 'default' or 'text', or none."
            )
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=_features(DEFAULTS[self.config_name]),
            reference_urls=["https://arxiv.org/abs/2505.20161"],
        )
        info.format = "arrow"  # refused by the constructor for lists; keeps 100,000 rows from becoming Python floats
        return info

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Scores the rows given here or added before; they are dropped afterwards, also if this fails.

        With several processes the main one gets the result, the others None. Keywords meant for other metrics of an
        `evaluate.combine` are left unused with a warning.
        """
        if self.writer is None or any(kwargs.get(name) is not None for name in TYPES):
            self._choose_inputs(kwargs)
        used = TEXT_OPTIONS if "prompts" in self._feature_names() else ["feature_id"]
        unused = sorted(set(kwargs) - {*TYPES, *used, "order"})
        if unused:
            warnings.warn(
                f"g_vendi does not use {unused} with {self._feature_names()}: misspelt, or for another metric?",
                stacklevel=2,
            )
        try:
            return super().compute(**kwargs)
        except BaseException:
            self._discard()
            raise

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds rows. Either all or, when one is bad, none of the call's rows are added."""
        unknown = sorted(set(kwargs) - set(TYPES))
        if unknown:
            raise ValueError(f"g_vendi does not know the inputs {unknown}; it knows {list(TYPES)}.")
        self._choose_inputs(kwargs)
        columns = {name: kwargs[name] for name in self._feature_names()}
        _check_columns(columns)
        tables = list(_gradient_tables(columns) if "gradients" in columns else _text_tables(columns))
        if self.writer is None:
            self.selected_feature_format = self.features
            self._init_writer()
        assert self.writer is not None
        for table in tables:
            self.writer.write_table(table)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Adds one row, under the same names as a batch: `add(gradients=row)`."""
        self.add_batch(**{name: None if value is None else [value] for name, value in kwargs.items()})

    def _compute(self, *, order: float = 1.0, feature_id: str | None = None, **kwargs: Any) -> dict[str, Any]:
        assert self.data is not None
        rows = self.data.with_format(None)
        ids = rows["ids"] if "ids" in rows.column_names else None
        if not len(rows):
            raise ValueError("g_vendi got 0 rows, and the diversity of nothing is not defined: is the dataset empty?")
        if "prompts" in rows.column_names:
            settings = {name: value for name, value in kwargs.items() if name in TEXT_OPTIONS}
            settings |= {"model": settings.pop("model_id")} if "model_id" in settings else {}
            gradients, feature_id = _gradients_of_texts(rows, settings)
        else:
            gradients = rows["gradients"]
        return g_vendi(gradients, order=order, ids=ids, feature_id=feature_id).as_dict()

    def _choose_inputs(self, kwargs: Mapping[str, Any]) -> None:
        """Which inputs this round has follows from the first that are given."""
        given = [name for name in TYPES if kwargs.get(name) is not None]
        if not given:
            raise ValueError(
                f"g_vendi got nothing to score (keywords given: {sorted(kwargs)}): give gradients=..., or prompts=... "
                "and completions=..."
            )
        if [name for name in given if name != "ids"] not in DEFAULTS.values():
            raise ValueError(f"g_vendi got {given}: give either gradients, or both prompts and completions.")
        if self.writer is not None and given != self._feature_names():
            raise ValueError(
                f"g_vendi got {given}, after rows with {self._feature_names()}: one score is of one kind of rows. Call "
                "compute() in between, or use a second metric object."
            )
        self.info.features = _features(given)

    def _discard(self) -> None:
        """Forgets the rows of a failed call, so that they cannot leak into the next one."""
        if self.writer is not None:
            self.writer.close()
        self.writer = self.data = self.buf_writer = None
        held = [(self.filelock, self.cache_file_name), *zip(self.filelocks or (), self.file_paths or (), strict=True)]
        for lock, path in held:
            if lock is not None and lock.is_locked:
                Path(path).unlink(missing_ok=True)
                lock.release()
        self.cache_file_name = self.filelock = self.filelocks = self.file_paths = None


def _features(names: list[str]) -> Features:
    return Features({name: TYPES[name] for name in names})


def _gradient_tables(columns: dict[str, Any]) -> Iterator[pa.Table]:
    """Checked unit rows in Arrow, a thousand at a time. evaluate's own way, row by row, takes minutes for 100,000."""
    gradients, ids = columns["gradients"], columns.get("ids")
    left_out = np.ones(len(gradients), dtype=bool)
    for positions, rows in unit_blocks(gradients, ids):
        left_out[positions] = False
        offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
        values = pa.ListArray.from_arrays(offsets, rows.astype(np.float32).reshape(-1))
        yield _table(values, ids, positions)
    yield _table(pa.nulls(left_out.sum(), pa.list_(pa.float32())), ids, np.flatnonzero(left_out))


def _table(gradients: pa.Array, ids: Any, positions: np.ndarray) -> pa.Table:
    named = {} if ids is None else {"ids": pa.array([str(ids[int(i)]) for i in positions], pa.string())}
    return pa.table({"gradients": gradients} | named)


def _text_tables(columns: dict[str, Any]) -> Iterator[pa.Table]:
    for name in ("prompts", "completions"):
        for position, text in enumerate(columns[name]):
            if not isinstance(text, str):
                raise ValueError(
                    f"{name}[{position}] is {type(text).__name__} {text!r:.80}, not a string. For rows of messages use "
                    "hf_prism.GradientFeaturizer, and give its gradients."
                )
    yield pa.table({name: pa.array(map(str, values), pa.string()) for name, values in columns.items()})


def _check_columns(columns: dict[str, Any]) -> None:
    for name, values in columns.items():
        if isinstance(values, str):
            raise ValueError(f"{name} is one string, {values!r:.80}: give a list, one entry a row.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"g_vendi needs one entry a row in every input, but the lengths are {lengths}.")


def _gradients_of_texts(rows: Dataset, settings: dict[str, Any]) -> tuple[list[Any], str]:
    from .featurizer import GradientFeaturizer  # torch and transformers, for texts only

    featurizer = GradientFeaturizer(**settings)
    # All rows in one call: every row is checked before the model works on the first, and errors count rows from here.
    columns = featurizer({"prompt": rows["prompts"][:], "completion": rows["completions"][:]})
    return columns["gradient"], featurizer.feature_id
