import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import turns
from turns import ratios, spread, take_turns

speeds = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30)


def test_every_entrant_goes_once_a_round_and_the_first_round_is_dropped():
    order = []
    counter = itertools.count()

    def visit(name):
        return lambda: order.append(name) or float(next(counter))

    figures = take_turns({name: visit(name) for name in "abc"}, rounds=3)
    rounds = ["".join(order[start : start + 3]) for start in range(0, 12, 3)]
    assert rounds == ["abc", "bca", "cab", "abc"]
    assert figures == {"a": [5.0, 7.0, 9.0], "b": [3.0, 8.0, 10.0], "c": [4.0, 6.0, 11.0]}


@given(speeds)
def test_a_spread_is_median_and_quartiles(values):
    found = spread(values)
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    np.testing.assert_allclose([found.low, found.median, found.high], expected, rtol=1e-12)


def test_ratios_are_taken_round_by_round():
    """Where a machine slows down tenfold half way, equal rounds still tell who is faster."""
    theirs = [100.0, 100.0, 10.0, 10.0]
    found = ratios([2 * speed for speed in theirs], theirs)
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_a_visit_works_twice_to_warm_up_and_then_as_often_as_fills_its_time(monkeypatch):
    clock = itertools.count(step=0.25)  # seconds; read twice around each piece of work
    monkeypatch.setattr(turns.time, "perf_counter", lambda: float(next(clock)))
    done = []
    visit = turns.visit_of(lambda: done.append(1), amount=10.0, seconds=1.0)
    assert visit() == pytest.approx(10 / 0.25)
    assert len(done) == 2
    visit()
    assert len(done) == 2 + 4
