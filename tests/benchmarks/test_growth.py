import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apart import measured_apart
from growth import fit, point
from shapes import Shape

coefficient = st.floats(0.1, 10)


@given(coefficient, coefficient, coefficient)
def test_a_fit_finds_the_coefficients_that_made_the_costs(constant, linear, square):
    """Of a cost without noise; float64 and a condition below 1e6 leave nine digits."""
    values = (1, 2, 4, 6, 8, 12)
    costs = [constant + linear * x + square * x * x for x in values]
    np.testing.assert_allclose(fit(values, costs, 2), [constant, linear, square], rtol=1e-9)


def test_a_fit_weighs_errors_by_what_they_are_of_the_cost():
    """A tenth too much at the large end must not spoil the small end, a thousandth of its size."""
    values = (1, 10, 100, 1000)
    costs = [1.0 + x for x in values]
    constant, slope = fit(values, [*costs[:-1], costs[-1] * 1.1], 1)
    assert abs(constant + slope - costs[0]) < 0.05 * costs[0]


def test_work_done_apart_returns_and_tells_why_it_failed():
    assert measured_apart(math.factorial, 5) == 120
    with pytest.raises(RuntimeError, match="ValueError"):
        measured_apart(math.factorial, -1)


def test_a_step_of_replicas_is_timed_as_one_of_a_model_by_itself_is():
    small = Shape("small", 1, 16, 2, 8, 17, 2)
    for replicas in (1, 3):
        assert 0 < point(small, replicas)["step_s"] < 10
