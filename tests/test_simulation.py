"""A simulated generator: its stated laws, its right answers, and a response that depends on its request alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import closing
from fractions import Fraction
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from scipy.stats import binomtest, chisquare
from test_chains import READERS, told_in
from test_procedural import entailment_label, reference_answer

from hf_prism.generation import Request, Sampling
from hf_prism.tasks import chains, gym
from hf_prism.tasks.blocks import read_blocks
from hf_prism.tasks.families import FAMILIES, LONGER, Voice
from hf_prism.tasks.lexicon import NAMES, OBJECTS
from hf_prism.tasks.procedural import LONGER_SKELETONS, SKELETONS, generate
from hf_prism.tasks.simulation import SimulatedGenerator, kind_of, make, ranked, skewed_rows, write_rows
from hf_prism.tasks.styles import KEPT_BACK, style


ALL = (*SKELETONS, *LONGER_SKELETONS)
FOREIGN = ["What is 2 + 2?", "Ann reads 3 pages a day. How many pages does she read in a week?"]


def request(examples=(), wanted=2, *, seed=0, persona=None) -> Request:
    """A request in the format of `MathTask`, written here by hand."""
    head = f"Below are {len(examples)} math problems. Write {wanted} new problems. Begin each with [[Problem]]."
    head += f"\n\nWrite them for this person.\nPersona: {persona}" if persona else ""
    shown = "".join(f"---\n[[Problem]]\n{example}\n" for example in examples)
    return Request(({"role": "user", "content": f"{head}\n\n{shown}---"},), Sampling(), seed)


def text_of(generator: SimulatedGenerator, *requests: Request) -> list[str]:
    return [response.text for _, response in generator.generate(requests)]


def problems_in(text: str, cut: bool = False) -> list[Any]:
    return read_blocks(text, ["Problem"], optional=["Solution"], cut=cut)


def zipf(count: int, skew: float) -> list[float]:
    weights = [1 / (rank + 1) ** skew for rank in range(count)]
    return [weight / sum(weights) for weight in weights]


def fits(counts: Counter, order, probabilities) -> float:
    """The p-value of Pearson's chi-square; what is expected less than five times counts together."""
    assert set(counts) <= set(order)
    expected = [counts.total() * probability for probability in probabilities]
    rare = [index for index, number in enumerate(expected) if number < 5]
    pairs = [(counts[order[index]], number) for index, number in enumerate(expected) if number >= 5]
    if rare:
        pairs.append((sum(counts[order[index]] for index in rare), sum(expected[index] for index in rare)))
    return chisquare([count for count, _ in pairs], [number for _, number in pairs]).pvalue


def is_right(row) -> bool:
    family, _, name = row["skeleton"].partition("/")
    known = entailment_label(row["prompt"]) if family == "entailment" else None
    return row["answer"] == (known or reference_answer(family, name, row["numbers"]))


# -- kinds of problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("skew", "favourite_seed"), [(1.5, 0), (0.7, 3), (0, 0)])
def test_without_imitation_kinds_follow_zipfs_law(skew, favourite_seed):
    generator = SimulatedGenerator(skew=skew, imitation=0, favourite_seed=favourite_seed)
    counts = Counter(row["skeleton"] for seed in range(150) for row in generator.truth(request(wanted=20, seed=seed)))
    assert fits(counts, generator.skeletons, zipf(60, skew)) > 0.001
    assert fits(counts, generator.skeletons, zipf(60, skew + 0.3)) < 1e-6  # so the test can tell


def test_the_favourite_seed_says_which_kinds_are_liked():
    orders = [SimulatedGenerator(favourite_seed=seed).skeletons for seed in range(20)]
    assert all(set(order) == set(ALL) for order in orders)
    assert len({order[0] for order in orders}) > 10


@pytest.mark.parametrize("imitation", [0, 0.3, 1])
def test_imitation_is_the_probability_to_follow_an_example(imitation):
    generator = SimulatedGenerator(imitation=imitation)
    rare = generator.skeletons[40]  # 0.002 by itself
    example = generate(1, skeletons=[rare], seed=5)[0]["prompt"]
    rows = [row for seed in range(150) for row in generator.truth(request([example], 10, seed=seed))]
    share = imitation + (1 - imitation) * zipf(60, 1.5)[40]
    assert binomtest(sum(row["skeleton"] == rare for row in rows), len(rows), min(share, 1)).pvalue > 0.001


def test_examples_are_followed_alike_and_those_it_does_not_know_are_none():
    generator = SimulatedGenerator(["story", "groups"], imitation=1)
    known = [generate(1, skeletons=[kind], seed=5)[0]["prompt"] for kind in ("story/--", "groups/*-")]
    unknown = [*FOREIGN, generate(1, families=["units"], seed=5)[0]["prompt"]]
    rows = [row for seed in range(100) for row in generator.truth(request([*unknown, *known], 10, seed=seed))]
    assert fits(Counter(row["skeleton"] for row in rows), ["story/--", "groups/*-"], [0.5, 0.5]) > 0.001
    rows = [row for seed in range(100) for row in generator.truth(request(unknown, 10, seed=seed))]
    assert (
        fits(Counter(row["skeleton"] for row in rows), generator.skeletons, zipf(len(generator.skeletons), 1.5)) > 1e-3
    )


def test_examples_are_read_as_the_math_task_writes_them():
    from hf_prism.tasks.math import MathTask

    task, generator = MathTask(), SimulatedGenerator(imitation=1, noise=0)
    with closing(task):
        for row in skewed_rows(40, skew=0, seed=2):
            examples = [task.seed_row(row, "row 1"), {"prompt": FOREIGN[0]}]
            for persona in (None, "a baker"):
                messages = tuple(task.generation_messages(examples, 3, persona=persona))
                (text,) = text_of(generator, Request(messages, Sampling(), 1))
                candidates: list[Any] = task.parse(text)
                assert [kind_of(candidate["problem"]) for candidate in candidates] == [row["skeleton"]] * 3
                for candidate in candidates:
                    vote = task.vote(candidate, [candidate["solution"]])
                    assert vote.problem is None and f"\\boxed{{{vote.answer}}}" in candidate["solution"]


# -- numbers and words ------------------------------------------------------------------------------------------------


def test_answers_are_right_and_every_sum_holds():
    generator, sums = SimulatedGenerator(skew=0, noise=0), 0
    for row in [row for seed in range(60) for row in generator.truth(request(wanted=20, seed=seed))]:
        assert is_right(row), row
        assert re.findall(r"\\boxed{([^{}]*)}", row["completion"]) == [row["answer"]]
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", row["completion"]):
            left, right = Fraction(left), Fraction(right)
            assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign] == int(result)
            sums += 1
    assert sums > 1500


def test_names_and_objects_have_favourites():
    generator = SimulatedGenerator(["story"], imitation=0)
    rows = [row for seed in range(100) for row in generator.truth(request(wanted=20, seed=seed))]
    for pool in (NAMES, OBJECTS):
        words = [set(re.findall(r"\w+", row["prompt"])) & set(pool) for row in rows]
        counts = Counter(word for found in words for word in found if len(found) == 1)
        (_, most), (_, second), *_ = counts.most_common()
        law = zipf(len(pool), 1.5)
        assert binomtest(most, counts.total(), law[0]).pvalue > 0.001
        assert binomtest(second, counts.total(), law[1]).pvalue > 0.001


def test_a_persona_changes_words_and_nothing_else():
    generator = SimulatedGenerator(noise=0)
    examples = [row["prompt"] for row in generate(5, seed=4)]
    plain, *others = [
        [row for seed in range(50) for row in generator.truth(request(examples, seed=seed, persona=persona))]
        for persona in (None, "a baker in Lyon", "a retired sailor")
    ]
    for other in others:
        for column in ("skeleton", "numbers", "flaw"):
            assert [row[column] for row in other] == [row[column] for row in plain]
        assert all(map(is_right, other))
        assert sum(row["prompt"] == same["prompt"] for row, same in zip(plain, other, strict=True)) < 10


def test_many_personas_use_many_words():
    generator = SimulatedGenerator(["story"])
    asked = [
        [request(seed=seed, persona=f"person {seed}" if each else None) for seed in range(200)] for each in (0, 1)
    ]
    names = [
        len({name for text in text_of(generator, *requests) for name in re.findall(r"\w+", text)} & set(NAMES))
        for requests in asked
    ]
    assert names[1] > 1.5 * names[0]


# -- responses --------------------------------------------------------------------------------------------------------


def test_a_response_depends_on_its_request_alone():
    examples = [row["prompt"] for row in generate(5, seed=4)]
    requests = [request(examples, seed=seed, persona="a baker" if seed % 2 else None) for seed in range(20)]
    generator = SimulatedGenerator()
    texts = text_of(generator, *requests)
    assert texts == text_of(SimulatedGenerator(), *requests[::-1])[::-1]
    assert texts[7:8] == text_of(generator, requests[7])
    assert len(set(texts)) == 20
    code = (
        "import json, sys; from hf_prism.generation import *; from hf_prism.tasks.simulation import *;"
        "asked = lambda seed, text: Request(({'role': 'user', 'content': text},), Sampling(), seed);"
        "requests = [asked(*each) for each in json.load(sys.stdin)];"
        "print(json.dumps([response.text for _, response in SimulatedGenerator().generate(requests)]))"
    )
    written = json.dumps([(each.seed, each.messages[0]["content"]) for each in requests])
    done = subprocess.run([sys.executable, "-c", code], input=written, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == texts


def test_other_examples_give_other_problems_with_the_same_seed():
    first, second = (request([example], seed=1) for example in FOREIGN)
    assert text_of(SimulatedGenerator(), first) != text_of(SimulatedGenerator(), second)


def test_every_parameter_is_part_of_the_name():
    changes = [{}, {"families": ["story"]}, {"families": ["groups"]}, {"skew": 1.4}, {"imitation": 0.4}, {"noise": 0}]
    names = [SimulatedGenerator(**each).name for each in [*changes, {"favourite_seed": 1}]]
    assert len(set(names)) == len(names) and all("simulation" in name for name in names)
    assert SimulatedGenerator(skew=1, noise=0).name == SimulatedGenerator(skew=1.0, noise=0.0).name


def test_what_is_read_from_a_response_is_the_truth():
    generator, flaws, cut = SimulatedGenerator(noise=0.1), Counter(), 0
    requests = [request(wanted=3, seed=seed) for seed in range(1000)]
    for asked, (_, response) in zip(requests, generator.generate(requests), strict=True):
        rows = generator.truth(asked)
        flaws.update(row["flaw"] for row in rows)
        cut += response.finish_reason == "length"
        assert (response.finish_reason == "length") == (rows[-1]["flaw"] == "cut_off")
        blocks = problems_in(response.text, response.finish_reason == "length")
        blocks += [None] * (3 - len(blocks))  # cut off before its tag
        for row, block in zip(rows, blocks, strict=True):
            if row["flaw"] == "no_problem":
                assert block is None
            elif row["flaw"] == "cut_off":
                assert block is None or not block.get("Solution")
            else:
                assert block["Problem"] == row["prompt"] and kind_of(block["Problem"]) == row["skeleton"]
                boxed = re.findall(r"\\boxed{(.*)}", block["Solution"])
                assert boxed == ([] if row["flaw"] == "no_box" else [row["answer"]])
                assert block["Solution"].replace("\\boxed{", "").replace("}", "").count(row["answer"])
    assert binomtest(cut, 1000, 0.1).pvalue > 0.001
    # A cut hides another flaw of the last block.
    assert binomtest(flaws["no_problem"], 3000, 0.1 * (1 - 0.1 / 3)).pvalue > 0.001
    assert binomtest(flaws["no_box"], 3000, 0.9 * 0.1 * (1 - 0.1 / 3)).pvalue > 0.001


def test_without_noise_nothing_is_flawed():
    generator = SimulatedGenerator(noise=0)
    for seed in range(200):
        assert all(row["flaw"] is None for row in generator.truth(request(seed=seed)))


BAD = [
    ({"families": []}, "families is []"),
    ({"families": "story"}, "families is 'story'"),
    ({"families": ["story", "story"]}, "each once"),
    ({"families": ["storys"]}, "unknown 'storys' (did you mean 'story'?)"),
    ({"families": ["reasoning_gym/gsm_symbolic"]}, "unknown 'reasoning_gym/gsm_symbolic'"),
    ({"skeletons": []}, "skeletons is []"),
    ({"skeletons": ["story/+", "story/+"]}, "each once"),
    ({"families": ["story"], "skeletons": ["groups/*"]}, "unknown 'groups/*'; known in these families are story/+, "),
    ({"families": ["events"], "skeletons": ["events/++x"]}, "unknown 'events/++x' (did you mean 'events/++"),
    ({"skew": -1}, "skew is -1"),
    ({"skew": float("nan")}, "skew is nan"),
    ({"skew": float("inf")}, "skew is inf"),
    ({"skew": "steep"}, "skew is 'steep'"),
    ({"imitation": 1.5}, "imitation is 1.5"),
    ({"imitation": True}, "imitation is True"),
    ({"noise": -0.1}, "noise is -0.1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_bad_parameter_is_named(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SimulatedGenerator(**arguments)


@pytest.mark.parametrize(
    "text",
    [
        "What is 2 + 2? Put the answer inside \\boxed{}.",
        "Below are 2 pairs. Write 2 new pairs, with [[Premise]] and [[Hypothesis]].\n\n---\n[[Premise]]\nA\n---",
        "Problems like these:\n---\n[[Problem]]\nWrite 2 new words.\n---",
    ],
)
def test_a_request_for_anything_else_is_refused(text):
    asked = Request(({"role": "user", "content": text},), Sampling(), 0)
    with pytest.raises(ValueError, match="does not ask for problems"):
        text_of(SimulatedGenerator(), asked)


# -- longer chains and skewed seeds -----------------------------------------------------------------------------------


class Unlucky(Random):
    """Starts with the least, gains the least and loses the most."""

    def randint(self, a, b):
        assert a <= b
        return b if a == 1 else a


def test_longer_chains_leave_something_even_after_the_greatest_losses():
    for family, names in LONGER.items():
        for name in names:
            problem = FAMILIES[family][0](name, Unlucky(0), 15, Voice(Random(0), NAMES, OBJECTS, None))
            assert int(problem.answer) > 0, problem
            assert problem.answer == reference_answer(family, name, list(problem.numbers))


def test_longer_chains_are_drawn_only_where_asked_for():
    assert len(ALL) == len(set(ALL)) == 60
    assert not {row["skeleton"] for row in generate(2000, seed=1)} & set(LONGER_SKELETONS)
    rows = generate(500, skeletons=LONGER_SKELETONS, seed=1)
    assert {row["skeleton"] for row in rows} == set(LONGER_SKELETONS) and all(map(is_right, rows))


def test_skewed_rows_follow_zipfs_law():
    rows = skewed_rows(3000, skew=1.2, seed=3, favourite_seed=2)
    order = SimulatedGenerator(favourite_seed=2).skeletons  # the same favourites
    assert fits(Counter(row["skeleton"] for row in rows), order, zipf(60, 1.2)) > 0.001
    assert all(map(is_right, rows))
    names = Counter(name for row in rows for name in set(re.findall(r"\w+", row["prompt"])) & set(NAMES))
    assert max(names.values()) < 0.05 * len(rows)  # words are even


def test_skewed_rows_look_like_other_rows_and_begin_a_longer_call():
    rows = skewed_rows(300, seed=3)
    assert rows[:20] == skewed_rows(20, seed=3) != skewed_rows(20, seed=4)
    assert list(rows[0]) == [*generate(1)[0], "level"]
    assert len({row["id"] for row in rows}) == 300
    for row in rows:
        assert row["level"] == len(row["completion"].splitlines()) - 1 >= 1
    one_kind = {"skeletons": ["story/+"], "seed": 3}
    pairs = zip(skewed_rows(50, **one_kind), generate(50, **one_kind), strict=True)
    assert sum(row["numbers"] == other["numbers"] for row, other in pairs) < 5  # a fair test set for one another


def test_written_rows_are_read_back(tmp_path):
    rows = skewed_rows(5)
    write_rows(tmp_path / "seeds.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "seeds.jsonl").read_text().splitlines()] == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skeletons": ["story/?"]}, "unknown 'story/?'"),
        ({"skeletons": []}, "skeletons is []"),
        ({"skeletons": ["story/+", "story/+"]}, "each once"),
        ({"skew": -0.5}, "skew is -0.5"),
    ],
)
def test_bad_arguments_of_skewed_rows_are_named(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        skewed_rows(1, **arguments)


# -- chains of arithmetic, and skeletons that are held out ------------------------------------------------------------


CHAINS = [kind for family in chains.FAMILIES for steps in (2, 3) for kind in chains.skeletons(family, steps)]


def is_right_chain(row) -> bool:
    """By a reader of the text that knows nothing of how it was written."""
    signs, numbers, value = READERS[row["family"]](told_in(row["prompt"]))
    return (f"{row['family']}/{signs}", numbers, str(value)) == (row["skeleton"], row["numbers"], row["answer"])


def test_what_was_written_before_chains_were_known_is_written_still():
    kinds = {"skeletons": ALL, "seed": 4}
    examples = [row["prompt"] for row in generate(40, **kinds)]
    asked = [
        request(examples[seed : seed + 5], 5, seed=seed, persona="a baker" if seed % 2 else None) for seed in range(30)
    ]

    def digest(content: Any) -> str:
        return sha256(json.dumps(content).encode()).hexdigest()[:16]

    def written(generator: SimulatedGenerator) -> str:
        rows = [row for each in asked for row in generator.truth(each)]
        return digest([generator.name, list(generator.skeletons), text_of(generator, *asked), rows])

    other = {"skew": 0.7, "surface_skew": 1, "imitation": 0.8, "noise": 0.2, "favourite_seed": 3}
    assert written(SimulatedGenerator()) == "7f4ffbef0747850a"
    assert written(SimulatedGenerator(["story", "groups"], **other)) == "5d5bee67c73583ef"
    assert digest(skewed_rows(300, seed=5, favourite_seed=2)) == "76e23659275adaad"
    assert digest([kind_of(prompt) for prompt in examples]) == "0461eb4d0e8c30c6"


def test_families_of_chains_are_written_where_they_are_asked_for_and_follow_zipfs_law():
    assert not set(SimulatedGenerator().skeletons) & set(chains.SKELETONS)
    for family in chains.FAMILIES:
        own = SimulatedGenerator([family], skew=1, imitation=0)
        assert sorted(own.skeletons) == sorted(kind for kind in CHAINS if kind.startswith(family))
        counts = Counter(row["skeleton"] for seed in range(50) for row in own.truth(request(wanted=20, seed=seed)))
        assert fits(counts, own.skeletons, zipf(80, 1)) > 0.001


def test_chains_are_right_and_look_like_other_rows():
    generator = SimulatedGenerator(["events", "people"], skew=0, noise=0)
    for persona in (None, "a baker"):
        rows = [row for seed in range(40) for row in generator.truth(request(wanted=20, seed=seed, persona=persona))]
        assert all(map(is_right_chain, rows))
        for row in rows:
            assert re.findall(r"\\boxed{([^{}]*)}", row["completion"]) == [row["answer"]]
            assert set(row) == {*generate(1)[0], "flaw"} - {"id"}
            assert kind_of(row["prompt"], CHAINS) == row["skeleton"]
    assert {row["family"] for row in rows} == set(chains.FAMILIES)


@pytest.mark.parametrize("imitation", [0, 1])
def test_chains_that_are_shown_are_imitated_in_whatever_words(imitation):
    generator = SimulatedGenerator(["events", "people"], imitation=imitation, noise=0)
    for seed, kind in enumerate(("events/++", "events/*-/", "people/+-", generator.skeletons[-1])):
        for rephrased in (False, True):
            voice = style(seed, Random(seed), rephrased=rephrased)
            example = chains.pose(kind, Random(seed), voice)["prompt"]
            rows = generator.truth(request([*FOREIGN, example], 20, seed=seed))
            assert all(row["skeleton"] == kind for row in rows) == bool(imitation)


def test_a_problem_of_two_readings_is_imitated_as_the_one_that_is_written():
    example = "Mary has 12 cups. Mary buys 5 more. Mary buys 6 more. How many cups does Mary have now?"
    for family in ("story", "events"):
        generator = SimulatedGenerator([family], imitation=1)
        kinds = {row["skeleton"] for row in generator.truth(request([example], 20))}
        assert kinds == {kind_of(example, generator.skeletons)} == {f"{family}/++"}


def test_chains_are_never_told_in_the_wordings_that_are_kept_back():
    generator = SimulatedGenerator(["events", "people"], skew=0, surface_skew=0, noise=0)
    people = (None, *(f"person {number}" for number in range(5)))
    rows = [
        row for seed in range(60) for row in generator.truth(request(wanted=9, seed=seed, persona=people[seed % 6]))
    ]
    told = "\n".join(row["prompt"] for row in rows)
    lists = [chains.HAVE, chains.HOW_MANY, chains.LAST_HAS, *chains.EVENTS.values()]
    for wordings in (*lists, *chains.TOLD.values()):
        for place, wording in enumerate(wordings):
            whole = re.escape(wording.replace("{{", "{").replace("}}", "}"))
            pattern = re.sub(r"\\{\w+\\}", r"[\\w-]+", whole)
            spoken = re.search(rf"(?:^|[.?] |\n){pattern}(?: |\n|$)", told)
            assert bool(spoken) == (place < len(wordings) - KEPT_BACK), (wording, spoken)


def test_a_persona_changes_the_words_of_chains_and_nothing_else():
    generator = SimulatedGenerator(["people"], noise=0)
    plain, other = (
        [row for seed in range(50) for row in generator.truth(request(seed=seed, persona=persona))]
        for persona in (None, "a baker in Lyon")
    )
    for column in ("skeleton", "numbers", "answer", "flaw"):
        assert [row[column] for row in other] == [row[column] for row in plain]
    assert sum(row["prompt"] == same["prompt"] for row, same in zip(plain, other, strict=True)) < 10


def test_skeletons_that_are_not_named_are_never_written_even_where_they_are_shown():
    whole = SimulatedGenerator(["events"], imitation=1, noise=0)
    some, held_out = whole.skeletons[10:50], whole.skeletons[:10]
    generator = SimulatedGenerator(["events"], imitation=1, noise=0, skeletons=sorted(some))
    assert generator.skeletons == some  # liked as before
    examples = [make(kind, "example")["prompt"] for kind in held_out]
    assert [kind_of(example, chains.SKELETONS) for example in examples] == list(held_out)
    rows = [row for seed in range(100) for row in generator.truth(request(examples, 10, seed=seed))]
    assert fits(Counter(row["skeleton"] for row in rows), some, zipf(40, 1.5)) > 0.001


def test_skeletons_are_part_of_the_name_in_any_order_and_only_where_they_are_given():
    def name(*skeletons: str) -> str:
        return SimulatedGenerator(["events"], skeletons=skeletons or None).name

    assert name() == SimulatedGenerator(["events"]).name and "skeletons" not in name()
    assert name("events/++", "events/--") == name("events/--", "events/++")
    assert len({name(), name("events/++", "events/--"), name("events/++"), name("events/--")}) == 4


def test_skewed_rows_know_chains_of_any_length():
    rows = skewed_rows(600, skew=0, skeletons=chains.SKELETONS, seed=3)
    assert all(map(is_right_chain, rows))
    assert {row["level"] for row in rows} == {1, 2, 3, 4}
    assert all(row["level"] == len(row["skeleton"].partition("/")[2]) for row in rows)


# -- reasoning-gym ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", gym.OPENINGS)
def test_answers_of_reasoning_gym_get_its_full_score(family):
    library = pytest.importorskip("reasoning_gym")
    for seed in (0, 1, 2, *(Random(family).randrange(2**31) for _ in range(15))):
        problem = gym.problem(family, seed)
        data = library.create_dataset(family, size=1, seed=seed)
        assert problem["prompt"] == data[0]["question"].strip()
        (boxed,) = re.findall(r"\\boxed{([^{}]+)}", problem["completion"])
        assert data.score_answer(boxed, entry=data[0]) == 1.0 and boxed == problem["answer"]
        assert kind_of(problem["prompt"]) == problem["skeleton"] == f"reasoning_gym/{family}"
        assert len(problem["prompt"]) < 700 and "[[" not in problem["prompt"]
        (block,) = problems_in(f"---\n[[Problem]]\n{problem['prompt']}\n---")
        assert block == {"Problem": problem["prompt"]}


def test_problems_of_reasoning_gym_are_simulated_and_imitated():
    pytest.importorskip("reasoning_gym")
    generator = SimulatedGenerator(["reasoning_gym/gcd", "reasoning_gym/lcm", "story"], imitation=1, noise=0)
    generator.check()
    example = gym.problem("lcm", 5)["prompt"]
    rows = generator.truth(request([example], 5, seed=1))
    assert {row["skeleton"] for row in rows} == {"reasoning_gym/lcm"} and len({row["prompt"] for row in rows}) == 5
    assert rows == generator.truth(request([example], 5, seed=1, persona="a baker"))  # its words are given
    (text,) = text_of(generator, request([example], 5, seed=1))
    assert [block["Problem"] for block in problems_in(text)] == [row["prompt"] for row in rows]
    (row,) = skewed_rows(1, skeletons=["reasoning_gym/lcm"])
    assert row["level"] == 1 and list(row) == list(skewed_rows(1)[0])


def test_no_family_of_reasoning_gym_begins_like_another():
    for family, opening in gym.OPENINGS.items():
        assert gym.skeleton_of(opening) == f"reasoning_gym/{family}"
    assert [prompt for prompt in FOREIGN if kind_of(prompt)] == []


def test_without_reasoning_gym_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    for use in (lambda: gym.problem("gcd", 1), lambda: SimulatedGenerator(["reasoning_gym/gcd"])):
        with pytest.raises(ValueError, match='pip install "hf-prism\\[gym\\]"'):
            use()
    SimulatedGenerator()  # needs nothing


def test_an_unknown_family_of_reasoning_gym_is_named():
    with pytest.raises(ValueError, match="unknown family 'gsm_symbolic'"):
        gym.problem("gsm_symbolic", 1)


def test_preference_between_two_does_not_depend_on_a_third():
    some, all_ = ranked("x", ("a", "c", "e")), ranked("x", tuple("abcdef"))
    assert some == tuple(each for each in all_ if each in some)
