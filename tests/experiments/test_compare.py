"""What is said of arms whose results are made up, so that the truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from assay.experiments.compare import compare
from assay.experiments.outcome import Outcome
from assay.experiments.planning import smallest_visible

METRIC = "val_loss_nats"


def arm(name, values):
    """NaN is a run that diverged."""
    return [
        Outcome(
            name, seed, f"{name}{seed}", "finished" if math.isfinite(v) else "diverged",
            {METRIC: v} if math.isfinite(v) else {}, "", 1.0,
        )
        for seed, v in enumerate(values)
    ]  # fmt: skip


def arms(*lists):
    return {f"arm{i}": arm(f"arm{i}", values) for i, values in enumerate(lists)}


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 5))
def test_an_interval_excludes_zero_just_where_holm_rejects(seed, n, others):
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, 1.5, others)
    base = rng.normal(3, 0.5, n)
    lists = [base, *(base + effect + rng.normal(0, 1, n) for effect in effects)]
    for found in compare(arms(*lists), METRIC):
        assert found.interval.excludes(0.0) == (found.p_holm < 0.05)
        said = {"lower": found.mean < 0, "higher": found.mean > 0, "not resolved": True}
        assert said[found.word]
        assert (found.word == "not resolved") == (found.p_holm >= 0.05)


def test_holm_stops_at_the_first_that_is_not_rejected_and_so_do_the_intervals():
    """Of p = 0.03 and 0.04 neither is under 0.05 / 2, though the second is under 0.05."""
    n = 10
    shape = np.random.default_rng(3).normal(size=n)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    shifts = [special.stdtrit(n - 1, 1 - p / 2) / math.sqrt(n) for p in (0.03, 0.04)]
    base = np.full(n, 2.0)
    for found in compare(arms(base, *(base + shape + shift for shift in shifts)), METRIC):
        assert found.p_holm == pytest.approx(0.06)
        assert found.word == "not resolved"
        assert not found.interval.excludes(0.0)


@pytest.mark.slow
def test_an_arm_made_worse_by_a_known_amount_is_called_worse_at_the_promised_power():
    """Noise is shared by pairs and does not count; its own part decides."""
    rng, n, own, times = np.random.default_rng(0), 5, 0.01, 400
    effect = smallest_visible(own * math.sqrt(2), n)
    words = []
    for _ in range(times):
        shared = rng.normal(2, 1.0, n)
        lists = [shared + rng.normal(0, own, n), shared + effect + rng.normal(0, own, n)]
        (found,) = compare(arms(*lists), METRIC)
        words.append(found.word)
    margin = 4 * math.sqrt(0.8 * 0.2 / times)
    assert words.count("higher") / times == pytest.approx(0.8, abs=margin)
    assert "lower" not in words


def test_equivalence_is_said_within_a_declared_delta_and_never_without_one():
    rng = np.random.default_rng(1)
    base = rng.normal(2, 1, 8)
    lists = [base, base + 0.001 + rng.normal(0, 0.002, 8)]
    assert compare(arms(*lists), METRIC, delta=0.01)[0].word == "equivalent"
    assert compare(arms(*lists), METRIC, delta=0.001)[0].word != "equivalent"
    assert compare(arms(*lists), METRIC)[0].word in ("not resolved", "higher")


def test_what_is_not_resolved_is_told_how_many_seeds_it_takes():
    rng = np.random.default_rng(2)
    base = rng.normal(2, 1, 4)
    noise = np.array([-1.0, 1.0, -1.0, 1.0]) * 0.02
    (found,) = compare(arms(base, base + 0.01 + noise), METRIC)
    assert found.word == "not resolved"
    assert smallest_visible(found.noise, found.needs) <= found.mean
    assert f"needs about {found.needs}" in found.sentence


def test_runs_that_diverged_are_counted_and_their_pairs_left_out():
    base = [2.0, 2.1, 2.2, 2.3]
    (found,) = compare(arms(base, [math.nan, 2.6, 2.7, 2.81]), METRIC)
    assert (found.n, found.diverged, found.diverged_first) == (3, 1, 0)
    assert found.mean == pytest.approx(0.5, abs=0.01)
    assert "1 runs diverged" in found.sentence


def test_an_arm_that_always_diverges_is_called_so_and_one_that_did_by_chance_is_not():
    base = [2.0 + 0.01 * n for n in range(8)]
    always, once = compare(arms(base, [math.nan] * 8, [math.nan, *base[1:]]), METRIC)
    assert always.word == "diverges"
    assert always.interval is None
    assert once.word != "diverges"
    assert "8 runs diverged, 0 of the first arm" in always.sentence


def test_too_few_pairs_are_not_judged():
    (found,) = compare(arms([2.0, math.nan], [2.1, 2.2]), METRIC)
    assert (found.word, found.interval, found.n) == ("not resolved", None, 1)
    assert "1 pairs of finished runs" in found.sentence
