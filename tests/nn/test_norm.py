import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.nn.norm import (
    NORMS,
    DyTConfig,
    LayerNormConfig,
    NoNormConfig,
    RMSNormConfig,
    RootMeanSquare,
    SigmaNorm,
    SigmaNormConfig,
)

CONFIGS = [
    NoNormConfig(),
    *(
        cls(affine=affine)
        for cls in (LayerNormConfig, SigmaNormConfig)
        for affine in ("scale_shift", "scale", "none")
    ),
    *(RMSNormConfig(affine=affine) for affine in ("scale", "none")),
    DyTConfig(alpha=0.25),
]
each_norm = pytest.mark.parametrize("config", CONFIGS, ids=repr)


def test_every_variant_is_examined_here():
    assert {type(config) for config in CONFIGS} == set(NORMS)


@each_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shape_and_dtype_are_kept(config, dtype):
    x = torch.randn(2, 3, 8, dtype=dtype)
    y = config.build(8).to(dtype)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@each_norm
def test_a_bfloat16_branch_under_autocast_is_normalised_with_float32_weights(config):
    x = torch.randn(4, 64)
    norm = config.build(64)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = norm(x.bfloat16())
    # Rounded on entry and on exit, each by at most 2^-9; centring moves a sum of such errors.
    torch.testing.assert_close(narrow.float(), norm(x), rtol=2**-8, atol=2**-8)


@each_norm
def test_the_affine_parameters_are_those_asked_for(config):
    names = {name for name, _ in config.build(4).named_parameters()}
    expected = {"scale_shift": {"weight", "bias"}, "scale": {"weight"}, "none": set()}
    if isinstance(config, DyTConfig):
        assert names == {"alpha", "weight", "bias"}
    else:
        assert names == expected[getattr(config, "affine", "none")]


@each_norm
def test_tokens_are_normalised_one_by_one(config):
    x = torch.randn(3, 5, 8)
    norm = config.build(8)
    torch.testing.assert_close(norm(x)[1, 2], norm(x[1, 2]), rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_layer_and_sigma_norm_ignore_scale_and_shift_of_their_input(scale, shift):
    x = torch.randn(2, 32, dtype=torch.float64)
    for cls in (LayerNormConfig, SigmaNormConfig):
        norm = cls(eps=1e-30).build(32).double()
        # Taking the mean away loses |shift| / scale of the 2^-53.
        lost = 1e-14 * (1 + abs(shift) / scale)
        torch.testing.assert_close(norm(scale * x + shift), norm(x), rtol=0, atol=10 * lost)


@settings(deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_rms_norm_ignores_the_scale_but_not_the_shift_of_its_input(scale):
    x = torch.randn(2, 32, dtype=torch.float64)
    norm = RMSNormConfig(eps=1e-30).build(32).double()
    torch.testing.assert_close(norm(scale * x), norm(x), rtol=1e-12, atol=0)
    assert (norm(x + 3) - norm(x)).abs().max() > 0.1


def test_sigma_norm_is_layer_norm_as_eps_goes_to_zero():
    x = torch.randn(4, 16, dtype=torch.float64)
    ours = SigmaNorm(16, eps=1e-13, affine="none")(x)
    torch.testing.assert_close(ours, nn.LayerNorm(16, eps=1e-26).double()(x), rtol=0, atol=1e-11)


@settings(deadline=None)
@given(sigma=st.floats(1e-8, 1e2), eps=st.floats(1e-8, 1e-1))
def test_a_token_of_deviation_sigma_leaves_sigma_norm_with_sigma_over_sigma_plus_eps(sigma, eps):
    x = torch.tensor([[-sigma, sigma]], dtype=torch.float64)
    y = SigmaNorm(2, eps=eps, affine="none")(x)
    assert y[0, 1].item() == pytest.approx(sigma / (sigma + eps), rel=1e-12)
    layer = LayerNormConfig(eps=eps).build(2).double()(x)
    assert layer[0, 1].item() == pytest.approx(sigma / math.sqrt(sigma**2 + eps), rel=1e-12)


def test_the_scales_of_the_audit_at_a_deviation_of_a_thousandth():
    x = 0.001 * torch.tensor([[-1.0, 1.0]])
    sigma, layer = (c(eps=1e-5).build(2)(x)[0, 1] for c in (SigmaNormConfig, LayerNormConfig))
    assert (round(sigma.item(), 3), round(layer.item(), 3)) == (0.990, 0.302)


def test_the_gradient_of_sigma_norm_at_zero_variance_is_not_a_number():
    for config, broken in ((SigmaNormConfig(), True), (LayerNormConfig(), False)):
        x = torch.ones(1, 8, requires_grad=True)
        config.build(8)(x).sum().backward()
        assert x.grad.isnan().all() == broken


def by_formula(x, weight, eps):
    return weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 4), (2, 3, 2, 6), (7,)])
def test_rms_norm_in_few_passes_has_the_output_and_gradients_of_its_formula(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1:], dtype=torch.float64, requires_grad=True)
    found, expected = RootMeanSquare.apply(x, weight, 1e-3)[0], by_formula(x, weight, 1e-3)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    grads = [torch.autograd.grad(y.sin().sum(), (x, weight)) for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_the_gradients_of_rms_norm_and_of_its_gradient_are_those_of_finite_differences():
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def both(x, weight):
        return RootMeanSquare.apply(x, weight, 1e-2)

    torch.autograd.gradcheck(both, (x, weight))
    torch.autograd.gradgradcheck(both, (x, weight))


def test_stacked_rms_norms_have_the_output_and_gradients_of_each_alone():
    """Weights stacked or shared, tokens likewise: every way in which vmap may call it."""
    x, weight = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    for dims in ((0, 0), (None, 0), (0, None)):
        inputs = [
            (t if d == 0 else t[0]).clone().requires_grad_()
            for t, d in zip((x, weight), dims, strict=True)
        ]
        runs = [
            torch.func.vmap(lambda a, b, f=f: f(a, b), in_dims=dims)(*inputs)
            for f in (
                lambda a, b: RootMeanSquare.apply(a, b, 1e-3)[0],
                lambda a, b: by_formula(a, b, 1e-3),
            )
        ]
        torch.testing.assert_close(*runs, rtol=1e-13, atol=1e-13)
        grads = [torch.autograd.grad(y.sin().sum(), inputs) for y in runs]
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_rms_norm_takes_the_few_passes_in_eager_mode_on_a_cpu_only():
    norm = RMSNormConfig().build(8)
    assert type(norm(torch.randn(2, 8)).grad_fn).__name__ == "RootMeanSquareBackward"
    half = RMSNormConfig().build(8).to(torch.bfloat16)  # torch's own sums in float32 there
    assert type(half(torch.randn(2, 8).bfloat16()).grad_fn).__name__ != "RootMeanSquareBackward"


def test_dynamic_tanh_is_the_papers_and_starts_at_the_slope_asked_for():
    """Zhu et al. 2025, algorithm 1: γ tanh(α x) + β, α a number, γ and β a channel."""
    norm = DyTConfig(alpha=0.25).build(3).double()
    x = torch.tensor([[-100.0, 0.4, 2.0], [0.0, 1e-3, 100.0]], dtype=torch.float64)
    expected = [[math.tanh(0.25 * value) for value in row] for row in x.tolist()]
    torch.testing.assert_close(norm(x), torch.tensor(expected, dtype=torch.float64))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0, 4.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
    scaled = [
        [g * y + b for g, y, b in zip((2, 3, 4), row, (0.5, 0, -0.5), strict=True)]
        for row in expected
    ]
    torch.testing.assert_close(norm(x), torch.tensor(scaled, dtype=torch.float64))
