"""The loop: every candidate has one verdict, nothing is lost, and the filter keeps what is sparse."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from datasets import Dataset
from helpers import save_tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import finish, kill_at
from scripted import Scripted, seeds, solver, true_answer, write_problems, writer
from synthesis_runs import grow, maker, sent_seeds, start, whole

from hf_prism import GradientFeaturizer, files, generation, runner, synthesis, synthesis_directory, synthesis_round
from hf_prism.generation import Response, Sampling
from hf_prism.rows import load_rows
from hf_prism.run_card import VERDICTS
from hf_prism.synthesis import PrismaticSynthesizer
from hf_prism.synthesis_directory import Clusters, read_rows
from hf_prism.tasks.math import MathTask
from hf_prism.tasks.nli import NLITask


TARGET = 45


@pytest.fixture(scope="module")
def featurizer(tmp_path_factory):
    return GradientFeaturizer(str(save_tiny_model(tmp_path_factory.mktemp("proxy"))), dim=64, device="cpu")


@pytest.fixture(scope="module")
def task():
    task = MathTask()
    yield task
    task.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, task, featurizer):
    place = tmp_path_factory.mktemp("run") / "run"
    return grow(place, task, featurizer)


def test_a_run_reaches_its_target_and_stops(run):
    assert run.stopped == "target" and len(run.rounds) >= 3
    assert len(run.dataset) == run.rounds[-1].pool_size >= TARGET
    assert run.rounds[-2].pool_size < TARGET
    assert files.read_json(run.directory / "result.json")["rows"] == len(run.dataset)


def test_every_accepted_answer_is_what_most_solutions_say_and_here_the_truth(run):
    new = run.dataset.filter(lambda row: row["round"] > 0)
    right = [str(true_answer(row["prompt"])) == row["answer"] for row in new]
    assert sum(right) >= 0.9 * len(right)  # two equal errors of three are possible
    for row in new:
        assert f"\\boxed{{{row['answer']}}}" in row["completion"] and row["completion"].startswith("<think>")


def test_verdicts_sum_to_candidates_and_to_the_pool(run):
    size = 0
    for number, summary in enumerate(run.rounds):
        rows = read_rows(run.directory / f"rounds/{number:03d}/candidates.parquet")
        assert Counter(row["verdict"] for row in rows) == {k: v for k, v in summary.verdicts.items() if v}
        assert set(summary.verdicts) == set(VERDICTS)
        size += summary.verdicts["accepted"]
        assert (summary.candidates, summary.pool_size) == (len(rows), size)


def test_provenance_says_where_every_row_comes_from(run):
    rows = {row["id"]: row for row in run.dataset}
    assert len(rows) == len(run.dataset)
    for row in rows.values():
        if row["round"] == 0:
            assert (row["seed_ids"], row["cluster"], row["generator"], row["votes"]) == ([], -1, None, 0)
            continue
        assert len(set(row["seed_ids"])) == 3
        assert all(rows[seed]["round"] < row["round"] for seed in row["seed_ids"])
        assert (row["generator"], row["solver"]) == ("scripted-writer", "scripted-solver")
        assert 1 <= row["votes"] <= 3 and row["agreement"] >= 0.5
        assert row["feature_id"] == runner.feature_id_of(run.directory / "rounds/000/features")


def test_exactly_what_falls_into_the_smallest_half_of_the_clusters_is_kept(run):
    """Against NumPy, from the files alone: sizes by counting, the nearest centre by cosines in float64."""
    rejected = 0
    for number in range(1, len(run.rounds)):
        folder = run.directory / f"rounds/{number:03d}"
        clusters = Clusters.read(folder / "clusters.parquet")
        pool = np.concatenate([vectors_of(run.directory, earlier) for earlier in range(number)])
        sizes = np.bincount((pool @ clusters.centers.T.astype(np.float64)).argmax(1), minlength=len(clusters.sizes))
        assert (sizes == clusters.sizes).all() and len(sizes) == max(2, round(0.1 * len(pool)))
        assert clusters.sparse.sum() == np.ceil(0.5 * len(sizes))
        assert sizes[clusters.sparse].max() <= sizes[~clusters.sparse].min(initial=10**9)
        features = runner.load_features(folder / "features").with_format("numpy")
        nearest = (np.asarray(features["gradient"][:]) @ clusters.centers.T.astype(np.float64)).argmax(1)
        expected = {row_id: clusters.sparse[label] for row_id, label in zip(features["id"], nearest, strict=True)}
        found = {row["id"]: row["verdict"] == "accepted" for row in read_rows(folder / "candidates.parquet") if row["verdict"] in ("accepted", "dense_cluster")}  # fmt: skip
        assert found == expected
        rejected += sum(not kept for kept in found.values())
    assert rejected > 10


def vectors_of(place: Path, number: int) -> np.ndarray:
    folder = place / f"rounds/{number:03d}"
    features = runner.load_features(folder / "features").with_format("numpy")
    rows = dict(zip(features["id"], np.asarray(features["gradient"][:], dtype=np.float64), strict=True))
    accepted = [row["id"] for row in read_rows(folder / "accepted.parquet")]
    return np.array([rows[name] / np.linalg.norm(rows[name]) for name in accepted]).reshape(-1, 64)


def test_the_score_of_a_round_is_that_of_its_pool(run):
    from hf_prism import g_vendi

    pool = np.concatenate([vectors_of(run.directory, number) for number in range(len(run.rounds))])
    assert run.rounds[-1].g_vendi == pytest.approx(g_vendi(pool).g_vendi, rel=1e-6)


@pytest.mark.parametrize("strategy", ["naive", "persona"])
def test_the_controls_keep_everything_that_is_verified(tmp_path, task, featurizer, strategy):
    done = grow(tmp_path / "run", task, featurizer, strategy=strategy)
    assert all(summary.verdicts["dense_cluster"] == 0 for summary in done.rounds)
    prompts = read_rows(tmp_path / "run/rounds/001/prompts.parquet")
    assert all((prompt["persona"] is not None) == (strategy == "persona") for prompt in prompts)
    assert all((prompt["persona"] or "") in prompt["messages"] for prompt in prompts)


# ---- nothing is lost -------------------------------------------------------------------------------------------------


def deaf(name: str) -> Scripted:
    def answer(request):
        raise AssertionError("a request was sent")

    return Scripted(name, answer)


def test_the_same_call_again_sends_and_changes_nothing(run, task, featurizer):
    before = whole(run.directory)
    again = grow(run.directory, task, featurizer, deaf("scripted-writer"), deaf("scripted-solver"))
    assert whole(run.directory) == before and again.stopped == "target"


def test_the_log_alone_gives_the_whole_run_again(run, task, featurizer, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "requests.jsonl"):
        shutil.copy(run.directory / name, tmp_path / "run" / name)
    grow(tmp_path / "run", task, featurizer, deaf("scripted-writer"), deaf("scripted-solver"))
    assert whole(tmp_path / "run") == whole(run.directory)


def test_a_higher_target_goes_on_from_the_lower_one(tmp_path, task, featurizer, run):
    grow(tmp_path / "run", task, featurizer, target=25)
    grow(tmp_path / "run", task, featurizer)
    assert whole(tmp_path / "run") == whole(run.directory)


def test_a_spent_budget_stops_the_run_and_a_higher_one_goes_on(tmp_path, task, featurizer, run):
    write, answer = writer(), solver()
    stopped = grow(tmp_path / "run", task, featurizer, write, answer, limits={"max_requests": 30})
    assert "30 requests" in stopped.stopped and len(write.requests) + len(answer.requests) == 30
    done = grow(tmp_path / "run", task, featurizer, write, answer)
    assert done.stopped == "target"
    sent = [request.key("") for request in write.requests + answer.requests]
    assert len(set(sent)) == len(sent)
    assert whole(tmp_path / "run") == whole(run.directory)


def test_the_limit_of_rounds_is_kept(tmp_path, task, featurizer):
    done = grow(tmp_path / "run", task, featurizer, target=1000, limits={"max_rounds": 2})
    assert len(done.rounds) == 3 and "2 rounds" in done.stopped


KILLS = {
    "while the generator answers": lambda: kill_at(generation.RequestLog, "_append", 5),
    "before the clusters get their name": lambda: kill_at(Path, "replace", 0, lambda _, to: to.name == "clusters.parquet"),
    "while the second round is solved": lambda: kill_at(generation.RequestLog, "_append", 100),
    "between a response and the next stage": lambda: kill_at(synthesis_round.Round, "parsed", 1),
    "before the verdicts get their name": lambda: kill_at(Path, "replace", 0, lambda _, to: to.name == "candidates.parquet" and "001" in str(to)),
    "before a round is whole": lambda: kill_at(synthesis.files, "write_json", 2, lambda path, _: path.name == "round.json"),
    "between a round and its pool": lambda: kill_at(synthesis._Run, "_write_pool", 1),
}  # fmt: skip


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_killed_run_comes_to_the_same_pool_and_repeats_no_logged_request(tmp_path, featurizer, run, kill):
    model, sent = featurizer._proxy_arguments["model"], tmp_path / "sent"
    assert finish(start(tmp_path / "run", model, sent, kill)) == [-signal.SIGKILL]
    logged = Counter(line["seed"] for line in files.read_lines(tmp_path / "run" / "requests.jsonl"))
    assert finish(start(tmp_path / "run", model, sent)) == [0]
    assert whole(tmp_path / "run") == whole(run.directory)
    times = Counter(sent_seeds(sent))
    assert all(times[seed] == 1 for seed in logged)
    assert sum(times.values()) - len(times) <= 1  # the one under way
    assert not list((tmp_path / "run").rglob(".*~*"))


# ---- counts add up, whatever the models say --------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=60),
    st.integers(0, 99).map(lambda n: write_problems(generation.Request(({"role": "user", "content": ""},), Sampling(), n))),
    st.sampled_from(["[[Problem]]", "---\n[[Problem]]\nWhat is 1 + 1?\n---" * 3, "\\boxed{2}", "\\boxed{", "<think>", "\\boxed{}", "[[Problem]]\n\x00\ud7ff\n---"]),
)  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    written=st.lists(TEXTS, min_size=3, max_size=3), solved=st.lists(TEXTS, min_size=3, max_size=3), cut=st.booleans()
)
def test_verdicts_sum_to_candidates_whatever_the_models_answer(
    tmp_path_factory, task, featurizer, written, solved, cut
):
    reason = "length" if cut else "stop"
    write = Scripted("writer", lambda r: Response(written[r.seed % 3], reason))
    answer = Scripted("solver", lambda r: Response(solved[r.seed % 3]))
    place = tmp_path_factory.mktemp("hostile") / "run"
    done = grow(place, task, featurizer, write, answer, limits={"max_rounds": 1}, requests=3, target=10_000)
    summary = done.rounds[1]
    rows = read_rows(place / "rounds/001/candidates.parquet")
    assert sum(summary.verdicts.values()) == summary.candidates == len(rows) >= 3
    assert all(row["verdict"] in VERDICTS for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


SPOILT = {
    "parse_failed": (Scripted("w", lambda r: "no"), None, {}),
    "no_answer": (None, Scripted("s", lambda r: "I do not know."), {}),
    "no_majority": (None, Scripted("s", lambda r: f"\\boxed{{{r.seed}}}"), {}),
    "duplicate": (Scripted("w", lambda r: f"[[Problem]]\n{seeds()[0]['prompt'].upper()}\n---"), None, {}),
    "too_long": (Scripted("w", lambda r: f"[[Problem]]\n{'word ' * 3000}{r.seed} Double 4, then add 5. What number is it?\n---"), None, {}),
    "contaminated": (Scripted("w", lambda r: "[[Problem]]\nHow many seas are there between the old and the new world of the maps?\n---"), None,
                     {"benchmarks": {"geo": [("7", "How many seas are there between the old and the new world of the maps?")]}}),
}  # fmt: skip


@pytest.mark.parametrize("verdict", SPOILT)
def test_each_way_to_fall_out_has_its_verdict(tmp_path, task, featurizer, verdict):
    write, answer, options = SPOILT[verdict]
    done = grow(tmp_path / "run", task, featurizer, write, answer, limits={"max_rounds": 1}, requests=1, **options)
    assert done.rounds[1].verdicts[verdict] == done.rounds[1].candidates > 0
    row = read_rows(tmp_path / "run/rounds/001/candidates.parquet")[0]
    if verdict == "duplicate":
        assert row["of"] == "seed-0"
    if verdict == "contaminated":
        assert row["of"] == "geo/7" and "old and the new world" in row["matched"]


def test_the_solution_that_is_kept_writes_the_answer_as_the_row_does(tmp_path, task, featurizer):
    """One of three says 0.5, the others 1/2: the row's answer and its solution are the commoner ones."""
    write = Scripted("w", lambda r: f"[[Problem]]\nWhat is half of one, for the {r.seed}th time?\n---")
    turn = iter(range(10**6))
    answer = Scripted("s", lambda r: "\\boxed{0.5}" if next(turn) % 3 == 0 else "\\boxed{1/2}")
    done = grow(
        tmp_path / "run", task, featurizer, write, answer, strategy="naive", requests=1, limits={"max_rounds": 1}
    )
    row = done.dataset[-1]
    assert (row["answer"], row["completion"], row["votes"]) == ("1/2", "\\boxed{1/2}", 3)


def test_repeats_within_one_round_enter_once(tmp_path, task, featurizer):
    write = Scripted("w", lambda r: "[[Problem]]\nDouble 4, then add 5. What number is it?\n---")
    done = grow(tmp_path / "run", task, featurizer, write, strategy="naive", requests=6, limits={"max_rounds": 1})
    assert done.rounds[1].verdicts["duplicate"] == 5


def test_rounds_that_accept_nothing_end_the_run(tmp_path, task, featurizer, capsys):
    done = maker(task, featurizer, Scripted("w", lambda r: "no"), requests=2).run(seeds(), tmp_path / "run", target_size=50)  # fmt: skip
    assert len(done.rounds) == 4 and "accepted nothing" in done.stopped
    assert "accepted none of its 2 candidates" in capsys.readouterr().err


def test_a_filter_that_keeps_nearly_everything_says_so(tmp_path, task, featurizer, capsys):
    answer = Scripted("s", lambda r: f"\\boxed{{{true_answer(r.messages[-1]['content'])}}}")
    write = Scripted("w", lambda r: f"[[Problem]]\nDouble {r.seed % 97}, then add {Random(r.seed).randint(100, 10**9)}. What number is it?\n---")  # fmt: skip
    maker(task, featurizer, write, answer, sparse_ratio=1.0).run(seeds(), tmp_path / "run", target_size=20)
    assert "keeps nearly everything" in capsys.readouterr().err


def test_seeds_that_repeat_a_benchmark_are_left_out_and_named(tmp_path, task, featurizer):
    text = "A very particular question about seven green boats on the wide river Oder at night: how many sails?"
    rows = [*seeds(), {"id": "leak", "prompt": text, "completion": "\\boxed{7}", "answer": "7"}]
    done = grow(tmp_path / "run", task, featurizer, rows=rows, target=13, benchmarks={"boats": [("b1", text)]}, limits={"max_rounds": 0})  # fmt: skip
    assert done.rounds[0].verdicts["contaminated"] == 1
    assert "leak" not in done.dataset["id"]


# ---- order -----------------------------------------------------------------------------------------------------------


def test_the_order_of_the_seeds_changes_neither_requests_nor_verdicts(tmp_path, task, featurizer, run):
    rows = seeds()
    Random(0).shuffle(rows)
    done = grow(tmp_path / "run", task, featurizer, rows=rows)
    assert sorted(done.dataset["id"]) == sorted(run.dataset["id"])
    for name in ("prompts", "candidates"):
        path = f"rounds/001/{name}.parquet"
        assert read_rows(tmp_path / "run" / path) == read_rows(run.directory / path)


def test_copies_at_the_head_of_the_seeds_leave_no_cluster_empty(tmp_path, task, featurizer):
    first = seeds()[0]
    rows = [{**first, "id": f"copy-{i}"} for i in range(20)] + seeds(20)
    done = grow(tmp_path / "run", task, featurizer, rows=rows, limits={"max_rounds": 1}, cluster_ratio=0.3)
    clusters = Clusters.read(tmp_path / "run/rounds/001/clusters.parquet")
    assert clusters.sizes.min() > 0
    assert 0 < done.rounds[1].verdicts["accepted"] < done.rounds[1].verdicts["accepted"] + done.rounds[1].verdicts["dense_cluster"]  # fmt: skip


def test_without_a_solver_the_generators_own_solution_is_taken(tmp_path, task, featurizer):
    write = Scripted("w", lambda r: f"[[Problem]]\nDouble {r.seed % 89}, then add {r.seed % 53}. What number is it?\n[[Solution]]\n\\boxed{{{2 * (r.seed % 89) + r.seed % 53}}}\n---")  # fmt: skip
    loop = PrismaticSynthesizer(task, write, None, featurizer, strategy="naive", requests=5, shots=3)
    done = loop.run(seeds(), tmp_path / "run", target_size=14, progress=False)
    row = done.dataset[len(seeds())]
    assert row["answer"] == str(true_answer(row["prompt"])) and row["solver"] is None and row["votes"] == 1


def test_levels_are_carried_on_as_those_of_the_examples(tmp_path, task, featurizer):
    rows = [{**row, "level": i % 3 + 1} for i, row in enumerate(seeds())]
    done = grow(tmp_path / "run", task, featurizer, rows=rows, few_shot="level", target=20)
    levels = dict(zip(done.dataset["id"], done.dataset["level"], strict=True))
    for row in done.dataset.filter(lambda row: row["round"] == 1):
        assert row["level"] == pytest.approx(np.mean([levels[name] for name in row["seed_ids"]]))


def test_the_loop_runs_for_nli(tmp_path, featurizer):
    data = Path(os.environ.get("HF_PRISM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (data / "snli_dev.jsonl").exists():
        pytest.skip(f"no NLI data in {data}")
    rows = load_rows(data / "snli_dev.jsonl", max_samples=30)
    nouns = ["dog", "man", "child", "singer", "farmer", "horse"]

    def pairs(request):
        draw = Random(request.seed)
        one, other = draw.sample(nouns, 2)
        return f"---\n[[Premise]]\nA {one} sleeps near a {other} in room {draw.randint(1, 99)}.\n[[Hypothesis]]\nA {one} is awake.\n---"

    def label(request):
        return f"It sleeps. Label: {Random(request.seed).choice(['contradiction'] * 4 + ['neutral'])}"

    write, answer = Scripted("pairs", pairs), Scripted("labels", label)
    done = grow(tmp_path / "run", NLITask(), featurizer, write, answer, rows=rows, target=40, strategy="naive")
    new = done.dataset.filter(lambda row: row["round"] > 0)
    assert set(new["label"]) <= {"contradiction", "neutral"} and Counter(new["label"]).most_common(1)[0][0] == "contradiction"  # fmt: skip
    assert {"premise", "hypothesis", "label", "prompt", "completion"} <= set(done.dataset.column_names)
    assert done.dataset.filter(lambda row: row["round"] == 0)["label"] == rows["label"]


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "unknown strategy": ({"strategy": "prismatik"}, {}, "did you mean 'prismatic'"),
    "unknown few_shot": ({"few_shot": "sparse_cluster"}, {}, "did you mean 'sparse_clusters'"),
    "no shots": ({"shots": 0}, {}, "shots must be a whole number"),
    "a ratio of zero": ({"sparse_ratio": 0}, {}, "sparse_ratio must be a number above 0"),
    "a ratio above one": ({"cluster_ratio": 1.5}, {}, "cluster_ratio must be"),
    "fewer seeds than shots": ({"shots": 13}, {}, "12 seeds are fewer than the 13 examples"),
    "no levels": ({"few_shot": "level"}, {}, "they have"),
    "a target below the seeds": ({}, {"target": 11}, "target_size = 11 is below the 12 seeds"),
    "no seeds": ({}, {"rows": Dataset.from_list([])}, "no rows"),
    "seeds without answers": ({}, {"rows": [{"prompt": f"{i}?", "completion": "x"} for i in range(5)]}, "row 0: no answer"),
    "seeds of one id": ({}, {"rows": [dict(seeds()[0]) for _ in range(5)]}, "share the id"),
    "no personas": ({"strategy": "persona", "personas": ()}, {}, "needs personas"),
    "more votes than solutions": ({"task_votes": 4}, {}, "min_votes = 4 is more than the 3 solutions"),
    "a negative seed": ({"seed": -1}, {}, "seed must be"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_before_anything_is_sent(tmp_path, featurizer, options, call, message):
    options = dict(options)
    task = MathTask(min_votes=options.pop("task_votes", 1))
    with pytest.raises(ValueError) as error:
        grow(tmp_path / "run", task, featurizer, deaf("w"), deaf("s"), **call, **options)
    assert message in str(error.value) or (message == "they have" and "which have the columns" in str(error.value))
    assert not (tmp_path / "run").exists()


def test_another_configuration_is_refused_with_the_fields_that_differ(run, task, featurizer):
    with pytest.raises(ValueError) as error:
        grow(run.directory, task, featurizer, sparse_ratio=0.25, generation=Sampling(temperature=0.5))
    assert "sparse_ratio: 0.5 there, 0.25 now" in str(error.value)
    assert "generator.temperature: 1.0 there, 0.5 now" in str(error.value)
    assert "shots" not in str(error.value)


def test_a_directory_that_holds_something_else_is_refused(tmp_path, task, featurizer, run):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else \\(notes.txt\\)"):
        grow(tmp_path, task, featurizer)
    with pytest.raises(ValueError, match="gradients of a dataset"):
        grow(run.directory / "rounds/000/features", task, featurizer)
    assert synthesis_directory.is_synthesis(run.directory) and not runner.is_run_directory(run.directory)
