"""A field tuned for every arm, on seeds that no result is read on."""

import pytest
from small_study import Told, base_on, finished, planned

from assay.errors import ConfigError, RunError
from assay.experiments import report
from assay.experiments.design import Design, grid
from assay.experiments.results import Results
from assay.experiments.study import Study
from assay.experiments.tuning import at_edge, declare, trials_of, tuned

ARMS = grid({"model.norm": ["rms", "none"]})
RATE = "train.optimizer.lr"
RATES = [1e-3, 4e-3, 1.6e-2]


@pytest.fixture
def design(base):
    return Design(base, ARMS, [0, 1])


def told(design, tuning, tmp_path, losses):
    """The trials, with the losses given in the order of arms and values."""
    trials = planned(design.base, tmp_path, trials_of(design, tuning).arms, seeds=tuning.seeds)
    by_arm = dict(zip([arm.name for arm in trials.design.arms], losses, strict=True))
    return Told(trials.lab, trials.name, trials.design, trials.record, by_arm)


def test_every_arm_is_tried_at_every_value_under_seeds_of_their_own(design):
    tuning = declare(design, RATE, RATES, 2, "study-tuning")
    trials = trials_of(design, tuning)
    assert len(trials.arms) == 6
    assert not set(trials.seeds) & set(range(100_000))
    tried = [(arm.changes["model.norm"], arm.changes[RATE]) for arm in trials.arms]
    assert tried == [(norm, rate) for norm in ("rms", "none") for rate in RATES]


def test_each_arm_takes_the_value_of_the_least_mean(design, tmp_path):
    tuning = declare(design, RATE, RATES, 2, "study-tuning")
    losses = [[2.0, 2.3], [2.2, 2.0], [2.4, 2.4], [3.0, 3.0], [3.1, 3.1], [2.9, 2.8]]
    found = tuned(design, tuning, told(design, tuning, tmp_path, losses))
    assert [arm.besides for arm in found.arms] == [{RATE: 4e-3}, {RATE: 1.6e-2}]
    assert found.made.tuning == tuning
    assert [at_edge(tuning, arm.besides[RATE]) for arm in found.arms] == [False, True]
    assert found.seeds == design.seeds


def test_a_value_at_which_a_run_diverges_is_the_worst_however_good_the_other_is(design, tmp_path):
    tuning = declare(design, RATE, RATES, 2, "study-tuning")
    losses = [[1.0, None], [2.2, 2.0], [None, None], [None, None], [None, 9.0], [None, None]]
    found = tuned(design, tuning, told(design, tuning, tmp_path, losses))
    assert [arm.besides[RATE] for arm in found.arms] == [4e-3, 4e-3]


def test_values_that_are_no_numbers_have_no_edge(design):
    tuning = declare(design, "train.schedule", ["cosine", "constant"], 2, "t")
    assert not at_edge(tuning, "cosine")
    rates = declare(design, RATE, [4e-3, 1e-3, 2e-3], 2, "t")
    assert [at_edge(rates, rate) for rate in rates.values] == [True, True, False]


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("model.norm", ["rms", "none"], "which arms are compared or matched by"),
        (RATE, [1e-3], "1 value of train.optimizer.lr found; expected at least 2"),
        (RATE, [], "0 value of"),
    ],
)
def test_a_tuning_of_nothing_is_one_sentence(design, field, values, message):
    with pytest.raises(ConfigError, match=message):
        declare(design, field, values, 2, "t")


def test_a_field_that_does_not_exist_is_named(design):
    tuning = declare(design, "train.optimizer.rate", [1, 2], 2, "t")
    with pytest.raises(ConfigError, match=r"train\.optimizer\.rate: unknown field"):
        trials_of(design, tuning)


@pytest.mark.slow
def test_trials_are_cells_that_are_run_once_and_the_report_tells_of_them(base, tmp_path):
    base = base_on(*base.data.text, train__steps=4)
    design = Design(base, ARMS, [0, 1])
    tuning = declare(design, RATE, [1e-4, 4e-3], 2, "study-tuning")
    arms = trials_of(design, tuning).arms
    trials = planned(base, tmp_path, arms, name="study-tuning", seeds=tuning.seeds).written()
    with pytest.raises(RunError, match="8 of 8 runs have not ended"):
        tuned(design, tuning, trials)
    found = tuned(design, tuning, finished(trials))
    study = planned(base, tmp_path, found.arms, seeds=(0, 1), made=found.made).written()
    assert not set(study.cells()) & set(trials.cells())
    again = Study.open(tmp_path / "lab", "study")
    assert again.record == study.record
    page = report.markdown(Results.of(finished(again)))
    assert "over 2 values (0.0001, 0.004) x 2 seeds for every arm" in page
    assert "tuned: train.optimizer.lr=0.004 over 2 values x 2 seeds, at the edge of what" in page
    assert "was tried" in page
    assert "Controlled: arms differ in the named fields" in page  # both took the same
