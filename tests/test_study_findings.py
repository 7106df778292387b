"""Findings of a study against SciPy, pandas and least squares, on runs made by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hf_prism.study_findings import study_findings
from hf_prism.study_runs import study_runs


DRAWS = 100


def made(repeats=2, seed=0):
    """Runs of 18 compositions: G-Vendi follows reasoning, distinct-2 and the compression ratio follow surface."""
    random = np.random.default_rng(seed)
    grid = [(a, b, s) for a in (1, 4, 32) for b in (1, 8) for s in (0.0, 1.0, 2.0)] * repeats
    reasoning, surface, skew = map(np.array, zip(*grid, strict=True))
    size, looks = np.log2(reasoning), np.log2(surface)
    noise = random.standard_normal((9, len(grid)))
    ood = 0.1 + 0.1 * size + 0.02 * noise[0]
    return pd.DataFrame(
        {
            "study": "made",
            "run": [f"run-{number}" for number in range(len(grid))],
            "n": 100,
            "tokens": 5000 + 100 * noise[1] + 100 * size,
            "factor.reasoning": reasoning,
            "factor.surface": surface,
            "factor.skew": skew,
            "measure.g_vendi": 10 + 5 * size - skew + 3 * noise[2],
            "measure.distinct_2": looks + 0.3 * size + noise[3],
            "measure.compression_ratio": 5 - looks - 0.5 * size + noise[4],
            "measure.mean_perplexity": 5 - size + noise[5],
            "measure.oracle": size,
            "accuracy.new": ood + 0.02 * noise[6],
            "accuracy.old": 0.8 + 0.02 * looks + 0.02 * noise[7],
            "in_distribution": 0.8 + 0.02 * looks + 0.02 * noise[8],
            "ood": ood,
            "feature_id": "0123456789abcdef",
            "base": "a base",
        }
    )


@pytest.fixture(scope="module")
def runs():
    return made()


@pytest.fixture(scope="module")
def found(runs):
    return study_findings(runs, draws=DRAWS)


def of(found, key):
    return next(each for each in found.measures if each.key == key)


def spearman(x, y):
    return stats.spearmanr(x, y)[0]


def coefficients(outcome, runs):
    """Of a regression on logarithms of the counts and the exponent, all standardised, by pandas and least squares."""
    columns = pd.DataFrame(
        {
            "outcome": outcome,
            "reasoning": np.log2(runs["factor.reasoning"]),
            "surface": np.log2(runs["factor.surface"]),
            "skew": runs["factor.skew"],
        }
    )
    z = (columns - columns.mean()) / columns.std(ddof=0)
    fitted = np.linalg.lstsq(z[["reasoning", "surface", "skew"]], z["outcome"], rcond=None)[0]
    return dict(zip(("reasoning", "surface", "skew"), fitted, strict=True))


SIGNS = {"g_vendi": 1, "distinct_2": 1, "compression_ratio": -1, "mean_perplexity": 1, "oracle": 1}


def test_correlations_are_those_of_scipy_with_redundancy_turned_round(found, runs):
    assert {each.key for each in found.measures} == set(SIGNS)
    for key, sign in SIGNS.items():
        measure, values = of(found, key), sign * runs[f"measure.{key}"]
        assert measure.ood.rho == pytest.approx(spearman(values, runs["ood"]))
        assert measure.in_distribution.rho == pytest.approx(spearman(values, runs["in_distribution"]))
        for name in ("new", "old"):
            assert measure.benchmarks[name].rho == pytest.approx(spearman(values, runs[f"accuracy.{name}"]))
        assert measure.ood.interval[0] <= measure.ood.rho <= measure.ood.interval[1]
    assert [each.key for each in found.measures if each.turned] == ["compression_ratio"]


def test_g_vendi_is_set_against_the_size_of_what_has_no_direction(found, runs):
    g_vendi = spearman(runs["measure.g_vendi"], runs["ood"])
    perplexity = spearman(runs["measure.mean_perplexity"], runs["ood"])
    assert perplexity < -0.5
    assert of(found, "mean_perplexity").ood.rho == pytest.approx(perplexity)
    assert of(found, "mean_perplexity").g_vendi_leads_by.difference == pytest.approx(g_vendi - abs(perplexity))
    ratio = spearman(-runs["measure.compression_ratio"], runs["ood"])
    assert of(found, "compression_ratio").g_vendi_leads_by.difference == pytest.approx(g_vendi - ratio)
    assert of(found, "g_vendi").g_vendi_leads_by is None


def test_a_measure_that_orders_backwards_is_not_favoured_if_it_has_a_direction(runs):
    backwards = runs.assign(**{"measure.distinct_2": -runs["ood"]})
    found = of(study_findings(backwards, draws=DRAWS), "distinct_2")
    assert found.ood.rho == pytest.approx(-1)
    assert found.g_vendi_leads_by.difference == pytest.approx(spearman(runs["measure.g_vendi"], runs["ood"]) + 1)


def residuals(values, covariates):
    design = np.column_stack([*map(stats.rankdata, covariates), np.ones(len(values))])
    return stats.rankdata(values) - design @ np.linalg.lstsq(design, stats.rankdata(values), rcond=None)[0]


def test_partial_correlations_are_given_what_varied_without_the_measure_itself(found, runs):
    tokens, perplexity = runs["tokens"] / runs["n"], runs["measure.mean_perplexity"]
    expected = [residuals(runs[name], (tokens, perplexity)) for name in ("measure.g_vendi", "ood")]
    assert of(found, "g_vendi").given == ["mean tokens a row", "mean perplexity"]
    assert of(found, "g_vendi").partial.rho == pytest.approx(stats.pearsonr(*expected)[0])
    expected = [residuals(values, (tokens,)) for values in (perplexity, runs["ood"])]
    assert of(found, "mean_perplexity").given == ["mean tokens a row"]
    assert of(found, "mean_perplexity").partial.rho == pytest.approx(stats.pearsonr(*expected)[0])
    sizes = runs.assign(n=[100, 200] * 18)
    assert of(study_findings(sizes, draws=DRAWS), "g_vendi").given[0] == "rows"


def test_effects_are_those_of_a_regression_on_doublings_and_exponents(found, runs):
    for key, sign in SIGNS.items():
        expected = coefficients(sign * runs[f"measure.{key}"], runs)
        assert {name: effect.value for name, effect in of(found, key).effects.items()} == pytest.approx(expected)
        if key != "oracle":
            assert of(found, key).ratio.value == pytest.approx(abs(expected["reasoning"] / expected["surface"]))
    for name in ("ood", "in_distribution"):
        expected = coefficients(runs[name], runs)
        assert {key: effect.value for key, effect in found.effects[name].items()} == pytest.approx(expected)
    assert [factor.doubles for factor in found.factors] == [True, True, False]


def test_a_factor_that_did_not_vary_has_no_effect_and_no_ratio(runs):
    found = study_findings(runs.assign(**{"factor.surface": 4}), draws=DRAWS)
    assert set(found.g_vendi.effects) == {"reasoning", "skew"} and found.g_vendi.ratio is None
    assert found.ratios == {"ood": None, "in_distribution": None}


def test_runs_of_a_composition_are_drawn_together(found):
    assert (found.runs, found.compositions, found.g_vendi.ood.units, found.g_vendi.ood.n) == (36, 18, 18, 36)
    assert study_findings(made(1), draws=DRAWS).g_vendi.ood.units == 18


def test_accuracies_are_described_overall_and_at_each_level(found, runs):
    quartiles = runs["ood"].quantile([0, 0.25, 0.5, 0.75, 1]).tolist()
    one = found.ood
    assert [one.least, one.lower_quartile, one.median, one.upper_quartile, one.most] == pytest.approx(quartiles)
    groups = runs.groupby("factor.reasoning")
    assert [level for level, _, _ in found.by_level] == [1, 4, 32]
    for level, ood, within in found.by_level:
        group = groups.get_group(level)
        assert (ood.runs, ood.median) == (12, pytest.approx(group["ood"].median()))
        assert within.most == pytest.approx(group["in_distribution"].max())
    assert found.factors[0].levels == {1: 12, 4: 12, 32: 12}


def test_the_ceiling_is_no_baseline_and_the_closest_rival_comes_first(found):
    assert of(found, "oracle").role == "ceiling"
    leads = [each.g_vendi_leads_by.difference for each in found.baselines]
    assert leads == sorted(leads) and {each.key for each in found.baselines} == set(SIGNS) - {"g_vendi", "oracle"}
    strengths = [abs(each.ood.rho) for each in found.measures if each.key in ("mean_perplexity", "oracle", "g_vendi")]
    assert strengths == sorted(strengths, reverse=True)


def test_what_cannot_be_computed_is_named_and_costs_nothing_else(found, runs):
    odd = runs.assign(**{"measure.dcscore": 2.5, "accuracy.never": 0.0, "accuracy.old": 1.0})
    some = study_findings(odd, draws=DRAWS)
    assert some.left_out == {"DCScore": "it is 2.5 in all runs"}
    assert some.g_vendi.benchmarks["never"] is None and some.g_vendi.ood == found.g_vendi.ood
    assert any("accuracy.never" in note for note in some.notes)
    doubled = study_findings(runs.assign(**{"factor.surface": runs["factor.reasoning"]}), draws=DRAWS)
    assert doubled.g_vendi.effects == {} and any("determine each other" in note for note in doubled.notes)


def test_few_compositions_are_warned_of(runs):
    found = study_findings(
        runs.assign(**{"factor.surface": 4, "factor.skew": 0.0, "factor.reasoning": [1, 2, 4, 8] * 9})
    )
    assert found.notes[0] == "4 compositions are few: trust no interval."


def test_findings_are_plain_json_and_columns_may_be_lists(found, runs):
    as_lists = study_findings(runs.to_dict("list"), draws=DRAWS)
    assert as_lists == found
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert told["runs_left_out"] == 0 and told["factors"][0]["levels"] == [[1.0, 12], [4.0, 12], [32.0, 12]]
    assert told["measures"][0]["ood"]["rho"] == found.measures[0].ood.rho


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs.iloc[:0], "There are no runs"),
        (lambda runs: runs.iloc[:9], "9 runs are too few .* 10 are needed"),
        (lambda runs: runs.drop(columns="ood"), "no column 'ood'.*Found: study, run, n"),
        (lambda runs: runs.drop(columns=["measure.g_vendi", "n"]), "no column 'n', 'measure.g_vendi'"),
        (lambda runs: runs.drop(columns=[c for c in runs if c.startswith("factor.")]), r"no column 'factor\.\*'"),
        (lambda runs: runs.drop(columns=["accuracy.new", "accuracy.old"]), r"no column 'accuracy\.\*'"),
        (
            lambda runs: runs.assign(**{"measure.distinct_2": [*runs["measure.distinct_2"][:-1], math.nan]}),
            "'measure.distinct_2' of run 'run-35' is nan",
        ),
        (lambda runs: runs.assign(ood=[None, *runs["ood"][1:]]), "'ood' of run 'run-0' is nan"),
        (lambda runs: runs.assign(tokens="many"), "'tokens' must hold numbers"),
        (lambda runs: runs.assign(run=["a", *runs["run"][:-1]]).assign(run="a"), "Run 'a' is there more than once"),
        (lambda runs: runs.assign(study=["math", "nli"] * 18), "2 values of 'study': math, nli"),
        (lambda runs: runs.assign(feature_id=["one", "two"] * 18), "2 values of 'feature_id'"),
        (lambda runs: runs.assign(ood=0.5), "ood is 0.5 in all 36 runs"),
        (lambda runs: runs.assign(**{"measure.g_vendi": 3.0}), "measure.g_vendi is 3.0 in all"),
    ],
)
def test_runs_that_say_nothing_are_refused_by_name(runs, change, message):
    with pytest.raises(ValueError, match=message):
        study_findings(change(runs), draws=DRAWS)


def test_counts_are_told_from_exponents_by_name_and_by_value(runs):
    changed = study_runs(runs.assign(**{"factor.skew": [1, 2] * 18, "factor.surface": [0, 3] * 18}))
    assert [(factor.name, factor.doubles) for factor in changed.factors] == [
        ("reasoning", True),
        ("surface", False),
        ("skew", False),
    ]
    assert changed.scaled(changed.factors[0]).max() == 5
