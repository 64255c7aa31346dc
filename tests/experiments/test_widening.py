"""Seeds added until intervals are narrow: the rule on the whole path, from runs to verdicts."""

import math

import numpy as np
import pytest
from scipy.stats import t as student
from small_study import outcomes_of

from assay.config import RunConfig
from assay.errors import ConfigError
from assay.experiments.compare import compare
from assay.experiments.design import Design, grid
from assay.experiments.made import Widening
from assay.experiments.widening import check, seeds_asked, widened

METRIC = "val_loss_nats"
ARMS = grid({"model.norm": ["rms", "none"]})


def simulated(rng, widening, *, effects, noise=1.0):
    """The comparisons of one experiment: a first stage, then as many seeds as the rule asks."""
    shared = rng.normal(5, 2, widening.most)
    own = rng.normal(0, noise, (len(effects) + 1, widening.most))
    losses = {"first": shared + own[0]}
    for n, effect in enumerate(effects):
        losses[f"arm {n}"] = shared + effect + own[n + 1]
    first = outcomes_of(**{arm: x[: widening.n_first] for arm, x in losses.items()})
    n = min(seeds_asked(first, METRIC, widening), widening.most)
    runs = outcomes_of(**{arm: x[:n] for arm, x in losses.items()})
    return compare(runs, METRIC, n_first=widening.n_first)


@pytest.mark.slow
@pytest.mark.parametrize("most", [400, 8])
def test_intervals_cover_what_they_say_whether_the_bound_binds_or_not(most):
    """Of 400 experiments, 95 % within four standard errors; the truth is a difference of 20."""
    rng, times = np.random.default_rng(0), 400
    widening = Widening(half_width=1.0, n_first=4, most=most)
    covered = 0
    for _ in range(times):
        (found,) = simulated(rng, widening, effects=[20])
        covered += not found.interval.excludes(20)
        assert most == 8 or found.interval.half_width <= 1.0001
    assert covered / times == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / times))


@pytest.mark.slow
def test_arms_alike_are_called_different_no_more_often_than_alpha_over_the_family():
    rng, times = np.random.default_rng(1), 150
    widening = Widening(half_width=1.5, n_first=3, most=200)
    erred = sum(
        any(found.word in ("lower", "higher") for found in simulated(rng, widening, effects=[0, 0]))
        for _ in range(times)
    )
    assert erred / times <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / times)


def test_with_several_comparisons_every_interval_is_narrow_enough():
    rng = np.random.default_rng(2)
    widening = Widening(half_width=1.0, n_first=4, most=2000)
    for _ in range(5):
        for found in simulated(rng, widening, effects=[0, 5, 0]):
            assert found.interval.half_width <= 1.0001


def test_what_the_rule_asks_is_steins_number_for_the_noisier_arm():
    rng = np.random.default_rng(3)
    base, noise = rng.normal(5, 1, 4), rng.normal(0, 0.3, 4)
    runs = outcomes_of(first=base, quiet=base + noise / 10, loud=base + noise)
    widening = Widening(half_width=0.1, n_first=4, most=10**6)
    t = student.ppf(1 - 0.025 / 2, 3)  # two comparisons
    assert seeds_asked(runs, METRIC, widening) == math.ceil((t * noise.std(ddof=1) / 0.1) ** 2)


def test_seeds_lost_to_divergence_in_the_first_stage_are_asked_for_again():
    runs = outcomes_of(first=[1.0, 2.0, 3.0, 4.0], other=[1.1, 2.0, None, 4.2])
    whole = outcomes_of(first=[1.0, 2.0, 4.0], other=[1.1, 2.0, 4.2])
    asked = seeds_asked(runs, METRIC, Widening(half_width=0.01, n_first=4, most=9))
    alone = seeds_asked(whole, METRIC, Widening(half_width=0.01, n_first=3, most=9))
    assert asked == alone + 1
    (found,) = compare(
        outcomes_of(first=[1.0, 2, 3, 4, 5], other=[1.1, 2.0, None, 4.2, 9.0]), METRIC, n_first=4
    )
    d = np.array([0.1, 0.0, 0.2])
    half = student.ppf(0.975, 2) * d.std(ddof=1) / 2
    assert found.interval.half_width == pytest.approx(half)
    assert found.mean == pytest.approx((0.1 + 0 + 0.2 + 4) / 4)


def test_arms_that_never_finish_together_ask_for_nothing():
    runs = outcomes_of(first=[1.0, 2.0], other=[None, None])
    assert seeds_asked(runs, METRIC, Widening(half_width=0.01, n_first=2, most=9)) == 2


def test_seeds_go_on_from_the_first_ones_up_to_the_bound():
    design = Design(RunConfig(), ARMS, [7, 8, 9])
    widening = Widening(half_width=0.01, n_first=3, most=5)
    assert widened(design, 4, widening).seeds == (7, 8, 9, 10)
    assert widened(design, 50, widening).seeds == (7, 8, 9, 10, 11)
    assert widened(design, 4, widening).made.widening == widening


def test_a_bound_below_the_first_stage_is_refused():
    with pytest.raises(ConfigError, match="--most-seeds: 2 found; expected at least the 3"):
        check(Widening(half_width=0.01, n_first=3, most=2))
