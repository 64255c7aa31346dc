"""The real A/A study of benchmarks/aa_study.py: its rule, and what was stored of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

# Benchmarks are scripts: their folder is on the path when one is run.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import aa_study
from assay.experiments.planning import ALPHA


def normal_losses(seed=0, shift=0.0):
    """Losses of 40 runs; those of side B are shifted."""
    found = 3 + 0.01 * np.random.default_rng(seed).normal(size=2 * aa_study.A_SIDE)
    found[aa_study.A_SIDE :] += shift
    return found.tolist()


def test_sides_differ_in_nothing_but_their_seeds():
    runs = [task.run for task in aa_study.trainings()]
    seeds = [run.train.seed for run in runs]
    assert len(set(seeds)) == 40
    settings = {run.train.model_copy(update={"seed": 0}) for run in runs}
    assert len(settings) == 1
    assert len({run.model_copy(update={"train": run.train}) for run in runs}) == 40
    assert {(run.model.d_model, run.model.n_layers, run.train.steps) for run in runs} == {
        (32, 2, 100)
    }


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10])
def test_of_normal_noise_alpha_of_all_draws_are_called_different(n):
    """20 pools of 1,000 draws: 0.05 +- 4 standard errors of 20,000, were draws independent."""
    shares = [
        aa_study.share_different(np.array(normal_losses(seed)), n, draws=1000, seed=seed)
        for seed in range(20)
    ]
    spread = max(np.std(shares, ddof=1), (ALPHA * (1 - ALPHA) / 1000) ** 0.5) / 20**0.5
    assert abs(np.mean(shares) - ALPHA) < 4 * spread


def test_each_draw_deals_runs_to_two_sides_without_repeats():
    """Of two losses against two others, all different by far, none is called equal by accident."""
    assert aa_study.share_different(np.array([0.0, 0.0, 0.0, 0.0]), 2, draws=50) == 0
    apart = np.array([0.0, 1e-9, 1.0, 1.0 + 3e-9])
    share = aa_study.share_different(apart, 2, draws=3000)
    assert abs(share - 1 / 3) < 4 * (2 / 9 / 3000) ** 0.5  # those that deal the near ones together


def test_sides_that_do_differ_are_called_so():
    assert aa_study.as_studied(normal_losses(shift=0.02))["word"] == "higher"
    assert aa_study.as_studied(normal_losses(shift=-0.02))["word"] == "lower"
    assert aa_study.as_studied(normal_losses())["word"] == "not resolved"


@pytest.fixture
def stored():
    if not aa_study.STORED.is_file():
        pytest.skip("docs/figures/aa_study.json is not there: run benchmarks/aa_study.py")
    return json.loads(aa_study.STORED.read_text(encoding="utf-8"))


def test_what_is_stored_follows_from_the_losses_stored(stored):
    again = aa_study.study(stored["losses"], draws=1000)
    for name in ("mean", "sd", "skewness", "excess_kurtosis", "shapiro_w", "shapiro_p"):
        assert stored[name] == pytest.approx(again[name], rel=1e-6)
    assert stored["whole"] == {
        name: value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
        for name, value in again["whole"].items()
    }
    for n, share in again["called_different"].items():
        kept = stored["called_different"][n]
        error = (kept * (1 - kept) / 1000) ** 0.5
        assert abs(share - kept) < 5 * error


def test_runs_that_do_not_differ_are_called_different_no_more_often_than_alpha(stored):
    """On the stored noise; 10,000 draws err by 0.0022, and small samples of it by their shape."""
    assert len(set(stored["losses"])) == 40
    for n in ("5", "10"):
        assert stored["called_different"][n] < ALPHA + 3 * (ALPHA * (1 - ALPHA) / 10_000) ** 0.5
