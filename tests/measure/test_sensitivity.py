import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.measure.sensitivity import lr_sensitivity


def test_by_hand():
    # best 2.0; above it 0.5, 0, and the third counts as the initial 6.0 rather than 9.0
    points = [(1e-3, 2.5), (1e-2, 2.0), (1e-1, 9.0)]
    assert lr_sensitivity(points, 6.0) == pytest.approx((0.5 + 0 + 4.0) / 3)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_run_that_diverged_counts_as_one_that_learned_nothing(lost):
    assert lr_sensitivity([(1e-3, 2.0), (1e-2, lost)], 6.0) == pytest.approx(2.0)


def test_a_model_that_learns_at_no_rate_looks_insensitive_unless_held_to_another_best():
    lost = [(1e-3, math.nan), (1e-2, 7.0)]
    assert lr_sensitivity(lost, 6.0) == 0
    assert lr_sensitivity(lost, 6.0, best_nats=2.0) == pytest.approx(4.0)


losses = st.lists(st.floats(0, 20), min_size=2, max_size=8)


@given(losses, st.floats(0, 20), st.floats(-3, 3))
def test_it_does_not_depend_on_where_zero_is(values, initial, shift):
    points = [(10.0**-i, loss) for i, loss in enumerate(values)]
    moved = [(rate, loss + shift) for rate, loss in points]
    assert lr_sensitivity(moved, initial + shift) == pytest.approx(
        lr_sensitivity(points, initial), abs=1e-9
    )


@given(losses, st.floats(0, 20), st.randoms())
def test_it_lies_between_zero_and_the_whole_way_and_knows_no_order(values, initial, random):
    points = [(10.0**-i, loss) for i, loss in enumerate(values)]
    shuffled = random.sample(points, len(points))
    found = lr_sensitivity(points, initial)
    assert found == lr_sensitivity(shuffled, initial)
    assert 0 <= found <= max(0.0, initial - min(values))


@pytest.mark.parametrize("points", [[], [(1e-3, 2.0)], [(1e-3, 2.0), (1e-3, 2.1)]])
def test_one_rate_says_nothing(points):
    with pytest.raises(ConfigError, match=r"learning rates: .* found; expected at least two"):
        lr_sensitivity(points, 6.0)


def test_an_initial_loss_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="initial loss: nan found"):
        lr_sensitivity([(1e-3, 2.0), (1e-2, 2.0)], math.nan)
