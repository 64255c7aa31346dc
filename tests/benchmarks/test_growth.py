import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import page
import results
from apart import measured_apart
from growth import fit, point
from replicas import measure
from shapes import CPU, Shape

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


@pytest.mark.slow
def test_work_done_apart_returns_and_tells_why_it_failed():
    assert measured_apart(math.factorial, 5) == 120
    with pytest.raises(RuntimeError, match="ValueError"):
        measured_apart(math.factorial, -1)


def test_a_step_of_replicas_is_timed_as_one_of_a_model_by_itself_is():
    small = Shape("small", 1, 16, 2, 8, 17, 2)
    for replicas in (1, 3):
        assert 0 < point(small, replicas)["step_s"] < 10


@pytest.mark.slow
def test_replicas_are_timed_by_backend_and_told_in_steps_of_one():
    assert measure(torch.device("cpu"), most=1)["torch"][0] > 0
    found = {"shape": CPU.as_dict(), "values": [1, 8, 32], "step_s": {"graphs": [0.01, 0.02, 0.03]}}
    found |= {"machine": results.machine(), "versions": {}, "code": None, "date": "2026-11-27"}
    text = "\n".join(page._replicas_by_backend(found))
    assert "`train.backend=graphs`: 10.0, 20.0, 30.0 ms for 1, 8, 32." in text
    assert "Steps of one model that a step of R replicas takes, 8: 2.0, 32: 3.0." in text
