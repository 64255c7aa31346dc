import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.train.spikes import SpikeWatch


def watched(values, before=()):
    watch = SpikeWatch("loss_nats", before)
    return [watch.look(value) for value in values], watch


def test_a_value_seven_deviations_above_the_mean_is_a_spike_and_one_just_below_is_not():
    before = np.random.default_rng(0).normal(3.0, 0.1, 128)
    edge = before.mean() + 7 * before.std(ddof=1)
    for value, expected in ((edge + 1e-6, True), (edge - 1e-6, False), (0.0, False)):
        (spike,), _ = watched([value], before)
        assert (spike is not None) == expected
    (spike,), _ = watched([9.0], before)
    assert spike.value == 9.0
    assert spike.mean == pytest.approx(before.mean())
    assert spike.std == pytest.approx(before.std(ddof=1))


def test_nothing_is_judged_before_32_values():
    spikes, _ = watched([1.0, 1.1] * 15 + [1.0, 100.0])
    assert not any(spikes)
    spikes, _ = watched([1.0, 1.1] * 16 + [100.0])
    assert [spike is not None for spike in spikes] == [False] * 32 + [True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_neither_judged_nor_kept(value):
    before = [1.0, 1.1] * 20
    spikes, watch = watched([value], before)
    assert spikes == [None]
    assert watch.before == before


@given(st.lists(st.floats(0, 100), min_size=40, max_size=300), st.integers(0, 299))
def test_a_watch_stopped_and_begun_again_says_the_same(values, cut):
    whole, _ = watched(values)
    first, watch = watched(values[:cut])
    second, _ = watched(values[cut:], watch.before)
    assert first + second == whole


def test_steady_values_spike_at_nothing_but_a_jump():
    """Their spread is zero, and a rounding of the last digit is no spike."""
    spikes, _ = watched([2.0] * 40 + [2.0 + 1e-9, 2.1])
    assert [i for i, spike in enumerate(spikes) if spike] == [41]


def test_normal_noise_around_a_falling_curve_spikes_at_nothing():
    """Seven deviations of a normal are one in 8e11; the fall only widens them."""
    steps = np.arange(20_000)
    noise = np.random.default_rng(1).normal(0, 0.05, len(steps))
    spikes, _ = watched(2 + 8 * np.exp(-steps / 500) + noise)
    assert not any(spikes)
