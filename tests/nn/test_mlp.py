import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.nn.mlp import (
    MLPS,
    GeGLUConfig,
    GELUConfig,
    ReLU2Config,
    ReLUConfig,
    SwiGLUConfig,
    gated_width,
)


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


ORACLES = [
    (GELUConfig(d_ff=1), gelu),
    (GELUConfig(d_ff=1, approximate="tanh"), gelu_tanh),
    (ReLUConfig(d_ff=1), lambda x: max(x, 0.0)),
    (ReLU2Config(d_ff=1), lambda x: max(x, 0.0) ** 2),
    (SwiGLUConfig(d_ff=1), lambda x: x / (1 + math.exp(-x))),
    (GeGLUConfig(d_ff=1), gelu),
]


def test_every_variant_has_an_oracle():
    assert {type(config) for config, _ in ORACLES} == set(MLPS)


@pytest.mark.parametrize(("config", "activation"), ORACLES, ids=lambda v: getattr(v, "kind", ""))
@settings(deadline=None)
@given(x=st.floats(-20, 20), y=st.floats(-5, 5))
def test_one_channel_follows_the_formula(config, activation, x, y):
    mlp = config.build(1, bias=False).double()
    with torch.no_grad():
        (mlp.gate if config.gated else mlp.up).weight.fill_(x)
        if config.gated:
            mlp.up.weight.fill_(y)
        mlp.down.weight.fill_(3.0)
        found = mlp(torch.ones(1, 1, dtype=torch.float64)).item()
    expected = 3 * activation(x) * (y if config.gated else 1.0)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@settings(deadline=None)
@given(d_model=st.integers(1, 20_000))
def test_a_gated_layer_has_the_parameters_of_a_plain_one_of_four_times_the_width(d_model):
    width = gated_width(d_model)
    assert width % 8 == 0
    # Rounding up to a multiple of 8 adds less than 8 channels of 3 D parameters each.
    assert 0 <= 3 * d_model * width - 2 * d_model * 4 * d_model < 3 * d_model * 8


@pytest.mark.parametrize("cls", MLPS, ids=lambda c: c.model_fields["kind"].default)
def test_the_width_is_the_one_asked_for_or_the_default(cls):
    assert cls(d_ff=5).width(12) == cls(d_ff=5).build(12, bias=True).up.out_features == 5
    assert cls().width(12) == (32 if cls.gated else 48)
