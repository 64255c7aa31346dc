import math

import pytest
import torch

from assay.measure.norms import gradient_at_zero_variance, output_scale
from assay.nn.norm import LayerNormConfig, NoNormConfig, RMSNormConfig, SigmaNormConfig

SIGMAS = [1e-6, 1e-3, 1.0, 50.0]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("eps", [1e-8, 1e-5, 1e-2])
def test_the_scale_that_comes_out_is_the_closed_form(sigma, eps):
    under_root = pytest.approx(sigma / math.sqrt(sigma**2 + eps), rel=1e-10)
    assert output_scale(LayerNormConfig(eps=eps), sigma, d_model=8) == under_root
    assert output_scale(RMSNormConfig(eps=eps), sigma, d_model=8) == under_root
    outside = pytest.approx(sigma / (sigma + eps), rel=1e-10)
    assert output_scale(SigmaNormConfig(eps=eps), sigma, d_model=8) == outside


def test_no_norm_lets_the_scale_through():
    assert output_scale(NoNormConfig(), 0.25, d_model=8) == 0.25


def test_the_audited_figures_come_out():
    """σ = 0.001, ε = 1e-5: 1/1.01, and 1/√11."""
    assert round(output_scale(SigmaNormConfig(eps=1e-5), 1e-3, d_model=64), 3) == 0.990
    assert round(output_scale(LayerNormConfig(eps=1e-5), 1e-3, d_model=64), 3) == 0.302


def test_only_the_root_of_nothing_has_no_gradient():
    """d√v/dv is infinite at v = 0; √(v + ε) has slope 1/2√ε there, times a centred x of 0."""
    assert gradient_at_zero_variance(SigmaNormConfig(), d_model=8).isnan().all()
    layer = gradient_at_zero_variance(LayerNormConfig(eps=1e-5), d_model=8)
    expected = (torch.eye(8)[0] - 1 / 8) / math.sqrt(1e-5)  # of (x₀ - mean) / √ε
    assert torch.allclose(layer, expected, rtol=1e-5)
