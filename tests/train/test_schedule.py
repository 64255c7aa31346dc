import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.schedule import (
    SCHEDULES,
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    WSDConfig,
)

ROUNDING = 1e-12  # a handful of float64 operations on numbers up to 1
FALLING = [LinearConfig, CosineConfig, WSDConfig]
lengths = st.integers(1, 2000)
fractions = st.floats(0, 1)


def factors(schedule, steps):
    return [schedule.factor(step, steps) for step in range(1, steps + 1)]


@st.composite
def schedules(draw):
    """Any schedule, its warm-up shorter or longer than the run or left to its default."""
    cls = draw(st.sampled_from(list(SCHEDULES)))
    warmups = st.integers(0, 3000)
    fields = {"warmup_steps": draw(warmups if cls is ConstantConfig else st.none() | warmups)}
    if cls in FALLING:
        fields["final"] = draw(fractions)
    if cls is WSDConfig:
        fields["decay"] = draw(fractions)
    return cls(**fields)


@given(schedule=schedules(), steps=lengths, data=st.data())
def test_a_factor_is_never_outside_0_and_1(schedule, steps, data):
    step = data.draw(st.integers(1, steps))
    assert 0 <= schedule.factor(step, steps) <= 1


@given(schedule=schedules(), steps=st.integers(1, 120))
def test_the_factor_rises_to_the_end_of_the_warm_up_and_never_after_it(schedule, steps):
    warmup = steps // 20 if schedule.warmup_steps is None else schedule.warmup_steps
    found = np.array(factors(schedule, steps))
    assert (np.diff(found[:warmup]) > 0).all()
    assert (np.diff(found[max(0, warmup - 1) :]) <= ROUNDING).all()


@pytest.mark.parametrize("cls", SCHEDULES)
@given(warmup=st.integers(1, 500), more=st.integers(1, 500))
def test_the_factor_is_1_where_the_warm_up_ends(cls, warmup, more):
    assert cls(warmup_steps=warmup).factor(warmup, warmup + more) == 1


@pytest.mark.parametrize("cls", SCHEDULES)
@given(steps=st.integers(1, 80), more=st.integers(0, 500))
def test_a_warm_up_longer_than_the_run_is_a_straight_line_that_never_arrives(cls, steps, more):
    schedule = cls(warmup_steps=steps + more)
    line = [step / (steps + more) for step in range(1, steps)]
    assert factors(schedule, steps)[:-1] == pytest.approx(line, abs=ROUNDING)


@pytest.mark.parametrize("cls", FALLING)
@given(final=fractions, steps=st.integers(40, 2000), warmup=st.integers(0, 39))
def test_the_last_factor_is_the_one_asked_for(cls, final, steps, warmup):
    schedule = cls(final=final, warmup_steps=warmup)
    assert schedule.factor(steps, steps) == pytest.approx(final, abs=ROUNDING)


@pytest.mark.parametrize("cls", [*FALLING, InverseSqrtConfig])
def test_a_warm_up_left_open_is_a_twentieth_of_the_steps(cls):
    found = factors(cls(), 400)
    assert found[:20] == pytest.approx([step / 20 for step in range(1, 21)], abs=ROUNDING)
    assert found[18] < 1
    assert factors(cls(), 400) == factors(cls(warmup_steps=20), 400)


def test_the_constant_schedule_stays_at_the_peak():
    assert factors(ConstantConfig(), 5) == [1.0] * 5
    assert factors(ConstantConfig(warmup_steps=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@given(steps=st.integers(2, 1000), final=fractions, data=st.data())
def test_the_linear_schedule_is_two_straight_lines(steps, final, data):
    warmup = data.draw(st.integers(1, steps - 1))
    step = data.draw(st.integers(1, steps))
    expected = np.interp(step, [0, warmup, steps], [0, 1, final])
    found = LinearConfig(warmup_steps=warmup, final=final).factor(step, steps)
    assert found == pytest.approx(expected, abs=ROUNDING)


@given(steps=st.integers(2, 1000), final=fractions, data=st.data())
def test_wsd_is_a_plateau_and_a_line_over_the_share_of_the_steps_asked_for(steps, final, data):
    decay = data.draw(st.floats(1 / steps, 1))
    falling = max(1, round(decay * steps))
    assert abs(falling - decay * steps) <= 0.5
    start = steps - falling
    step = data.draw(st.integers(1, steps))
    expected = np.interp(step, [start, steps], [1, final])
    found = WSDConfig(warmup_steps=0, decay=decay, final=final).factor(step, steps)
    assert found == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("step", [1, 50, 100, 101, 350, 999, 1000])
def test_the_cosine_is_nanogpts(step):
    """With its peak 6e-4, floor 6e-5, warm-up 100 and decay to the last step; old warm-up it/w."""
    peak, floor, warmup, last = 6e-4, 6e-5, 100, 1000
    if step < warmup:
        expected = peak * step / warmup
    else:
        share = (step - warmup) / (last - warmup)
        expected = floor + 0.5 * (1 + math.cos(math.pi * share)) * (peak - floor)
    found = CosineConfig(warmup_steps=warmup, final=floor / peak).factor(step, last)
    assert peak * found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("step", [1, 50, 100, 101, 350, 999, 1000])
def test_the_inverse_root_is_vaswanis(step):
    """Eq. 3 is min(step^-1/2, step warmup^-3/2) of a rate; its peak is at the warm-up's end."""
    expected = min(step**-0.5, step * 100**-1.5) / 100**-0.5
    found = InverseSqrtConfig(warmup_steps=100).factor(step, 1000)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found == InverseSqrtConfig(warmup_steps=100).factor(step, 5000)


def test_a_run_of_one_step_has_a_factor():
    """It is the last step, so the falling schedules give `final`; nothing divides by zero."""
    assert ConstantConfig().factor(1, 1) == 1
    assert LinearConfig(final=0.25).factor(1, 1) == 0.25
    assert CosineConfig(final=0.25).factor(1, 1) == 0.25
    assert WSDConfig(final=0.25, decay=1.0).factor(1, 1) == 0.25


@pytest.mark.parametrize("fields", [{"final": 1.5}, {"final": -0.1}, {"warmup_steps": -1}])
def test_a_field_out_of_range_is_refused(fields):
    with pytest.raises(ConfigError, match=rf"schedule\.{next(iter(fields))}: .* found"):
        decode(TrainConfig, {"schedule": {"kind": "cosine", **fields}})
