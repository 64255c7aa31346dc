import math
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import copied, model_of, same_bits
from torch import nn

from assay.errors import CheckpointError
from assay.train.optim import (
    OPTIMIZERS,
    AdafactorConfig,
    AdamWConfig,
    MuonConfig,
    Optimizers,
    OptimizerVariant,
    grouped,
)

WITH_BIASES = {"bias": True, "norm": "layer", "position": "learned"}


def give_gradients(model, seed):
    """Random gradients of order one, the same for every model of the same names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def orthogonal(rows, columns, spread, seed):
    """A matrix whose singular values lie evenly between 1 and `spread`, and its polar factor."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(square, full_matrices=False)
    values = torch.linspace(1, spread, len(s), dtype=torch.float64)
    return u @ values.diag() @ vt, u @ vt


def test_adamw_is_algorithm_2_of_its_paper():
    """In float64, over three steps of different rates; 1e-12 is some thousand roundings."""
    model = model_of(**WITH_BIASES).double()
    config = AdamWConfig(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.2)
    optimizers = config.build(model)
    expected = {n: p.detach().clone() for n, p in model.named_parameters()}
    mean = {n: torch.zeros_like(p) for n, p in expected.items()}
    square = {n: torch.zeros_like(p) for n, p in expected.items()}
    for step, factor in enumerate([0.5, 1.0, 0.25], start=1):
        give_gradients(model, step)
        optimizers.step(factor)
        for name, parameter in model.named_parameters():
            g, lr = parameter.grad, factor * 0.01
            decay = 0.2 if parameter.dim() == 2 else 0.0
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.95 * square[name] + 0.05 * g * g
            m_hat, v_hat = mean[name] / (1 - 0.8**step), square[name] / (1 - 0.95**step)
            update = m_hat / (v_hat.sqrt() + 1e-6) + decay * expected[name]
            expected[name] = expected[name] - lr * update
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("config", [AdamWConfig(lr=0.01), MuonConfig(lr=0.01, adamw_lr=0.01)])
def test_without_gradients_matrices_and_tables_decay_and_vectors_stay(config):
    model = model_of(**WITH_BIASES, tie_embeddings=False).double()
    optimizers, before = config.build(model), copied(dict(model.named_parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(0.5)
    for name, parameter in model.named_parameters():
        kept = 1 - 0.5 * 0.01 * 0.1 if parameter.ndim == 2 else 1
        torch.testing.assert_close(parameter.detach(), kept * before[name], rtol=1e-14, atol=0)
    vectors = [name for name, parameter in model.named_parameters() if parameter.ndim == 1]
    assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias"}


def test_muon_takes_the_linear_layers_of_the_blocks_and_adamw_everything_else():
    model = model_of(**WITH_BIASES, tie_embeddings=False, n_layers=2)
    optimizers = MuonConfig().build(model)
    muon, rest = (
        [optimizers.names[p] for group in optimizer.param_groups for p in group["params"]]
        for optimizer, _ in optimizers.parts
    )
    linear = [n for n, m in model.blocks.named_modules() if isinstance(m, nn.Linear)]
    assert sorted(muon) == sorted(f"blocks.{name}.weight" for name in linear)
    assert sorted(muon + rest) == sorted(name for name, _ in model.named_parameters())
    assert {"embed.weight", "unembed.weight"} <= set(rest)


def test_an_update_of_muon_has_the_root_mean_square_of_adamws():
    r"""Moonshot's eq. 4: the update is $0.2 \sqrt{\max(A, B)}$ times an orthogonal matrix.

    An orthogonal A × B matrix has RMS 1/√max(A, B). Newton-Schulz leaves its singular values in
    [0.5, 1.5] (Jordan 2024), so the RMS is 0.2 lr within that, and the cosine with the true polar
    factor is at least the least mean over RMS of numbers in [a, b], 2 √(ab) / (a + b) = 0.866.
    """
    model = model_of(d_model=256)  # at which Jordan's own scale would be 3.2 times smaller
    optimizers = MuonConfig(lr=0.5, weight_decay=0.0, momentum=0.0).build(model)
    give_gradients(model, 0)
    polar = {}
    for index, parameter in enumerate(optimizers.parts[0][0].param_groups[0]["params"]):
        gradient, polar[parameter] = orthogonal(*parameter.shape, spread=3.0, seed=index)
        parameter.grad = gradient.float()
    before = {p: p.detach().clone() for p in polar}
    optimizers.step(0.5)
    for parameter, direction in polar.items():
        update = (before[parameter] - parameter.detach()).double()
        assert 0.5 <= update.pow(2).mean().sqrt() / (0.2 * 0.5 * 0.5) <= 1.5
        assert (update * direction).sum() / update.norm() / direction.norm() >= math.sqrt(0.75)


class Wandering(torch.optim.Optimizer):
    """A stranger's: it keeps a tensor and two numbers of a parameter, and a number of a group."""

    def __init__(self, params):
        super().__init__(params, {"lr": 1.0, "drift": 0.5, "on": True})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["drift"] *= 1.5
            group["longest"] = max(group.get("longest", 0.0), group["drift"])
            for parameter in group["params"]:
                state = self.state[parameter]
                state.setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 0.5)
                state["count"] = state.get("count", 0) + 1
                state["size"] = state.get("size", 0.0) + float(parameter.grad.norm())
                rate = group["lr"] * group["drift"] / (state["count"] + state["size"])
                parameter.sub_(state["mean"], alpha=rate)


class WanderingConfig(OptimizerVariant):
    kind: Literal["wandering"] = "wandering"

    def build(self, model):
        return Optimizers.over(model, (Wandering(model.parameters()), 0.1))


class Keeping(torch.optim.SGD):
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["seen"] = ["a", "list"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cls", [*OPTIMIZERS, WanderingConfig])
def test_the_state_goes_through_a_file_by_name_and_training_goes_on_to_the_same_bits(
    cls, tied, tmp_path
):
    model, twin = (model_of(tie_embeddings=tied) for _ in range(2))
    optimizers = cls().build(model)
    for step in (1, 2):
        give_gradients(model, step)
        optimizers.step(1.0)
    save_file(optimizers.state(), tmp_path / "state")
    twin.load_state_dict(model.state_dict())
    resumed = cls().build(twin)
    resumed.load(load_file(tmp_path / "state"))
    for each, stepped in ((model, optimizers), (twin, resumed)):
        give_gradients(each, 3)
        stepped.step(0.5)
    assert same_bits(model.state_dict(), twin.state_dict())
    assert same_bits(optimizers.state(), resumed.state())


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_every_parameter_has_state_once(cls):
    model = model_of(tie_embeddings=True)
    optimizers = cls().build(model)
    give_gradients(model, 0)
    optimizers.step(1.0)
    owners = {name.rpartition("/")[0] for name in optimizers.state()}
    assert owners == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("other", [{"n_layers": 2}, {"tie_embeddings": False}, {"bias": True}])
def test_the_state_of_another_model_is_refused(other):
    model = model_of(**other)
    optimizers = AdamWConfig().build(model)
    give_gradients(model, 0)
    optimizers.step(1.0)
    here = AdamWConfig().build(model_of())
    with pytest.raises(CheckpointError, match=r"'[a-z0-9._]+/\w+' is (in the file alone|missing)"):
        here.load(optimizers.state())
    assert here.state() == {}


@pytest.mark.parametrize("cls", [*OPTIMIZERS, WanderingConfig])
@pytest.mark.parametrize("forged", ["shape", "dtype", "quantity", "missing"])
def test_a_state_of_other_shapes_types_or_quantities_is_refused(cls, forged):
    model = model_of()
    optimizers = cls().build(model)
    give_gradients(model, 0)
    optimizers.step(1.0)
    state = copied(optimizers.state())
    for key in [key for key in state if key.startswith("blocks.0.mlp.up.weight/")]:
        value = state.pop(key)
        if forged == "shape":
            state[key] = value.flatten()[:1].repeat(4)
        elif forged == "dtype":
            state[key] = value.double()
        elif forged == "quantity":
            state[f"{key}_"] = value
    with pytest.raises(
        CheckpointError,
        match=r"blocks\.0\.mlp\.up\.weight/.*(expected|is in the file alone|is missing)",
    ):
        cls().build(model).load(state)


def test_the_rate_is_the_factor_of_each_optimizers_own_peak():
    optimizers = MuonConfig(lr=0.3, adamw_lr=0.01).build(model_of())
    optimizers.step(0.5)
    rates = [{g["lr"] for g in optimizer.param_groups} for optimizer, _ in optimizers.parts]
    assert rates == [{0.15}, {0.005}]
    assert optimizers.peak_lr == 0.3


def test_gradients_are_dropped():
    model = model_of()
    optimizers = MuonConfig().build(model)
    give_gradients(model, 0)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_adafactor_is_pytorchs_at_the_rate_asked_for():
    model, twin = (model_of(**WITH_BIASES) for _ in range(2))
    config = AdafactorConfig(lr=0.01, beta2_decay=-0.7, eps=1e-2, clip=2.0, weight_decay=0.2)
    optimizers, options = config.build(model), {"beta2_decay": -0.7, "eps": (None, 1e-2), "d": 2.0}
    oracle = torch.optim.Adafactor(grouped(twin.parameters(), 0.2), **options)
    for step, factor in enumerate([0.5, 1.0, 0.25], start=1):
        for each in (model, twin):
            give_gradients(each, step)
        optimizers.step(factor)
        for group in oracle.param_groups:
            group["lr"] = factor * 0.01
        oracle.step()
    assert same_bits(model.state_dict(), twin.state_dict())
    kept = sum(value.numel() for value in optimizers.state().values())
    assert kept < 0.25 * sum(parameter.numel() for parameter in model.parameters())


def test_a_state_that_a_file_cannot_hold_is_refused_by_name():
    model = model_of()
    optimizers = Optimizers.over(model, (Keeping(model.parameters()), 0.1))
    optimizers.step(1.0)
    with pytest.raises(CheckpointError, match=r"embed\.weight/seen is a list; expected a tensor"):
        optimizers.state()


def test_a_number_of_a_group_that_is_not_there_is_refused():
    model = model_of()
    optimizers = WanderingConfig().build(model)
    give_gradients(model, 0)
    optimizers.step(1.0)
    state = optimizers.state()
    state["group 7.0/drift"] = state.pop("group 0.0/drift")
    with pytest.raises(CheckpointError, match=r"'group 7\.0/drift' found, expected one of group 0"):
        WanderingConfig().build(model_of()).load(state)


def test_what_the_kernels_have_no_step_for_is_stepped_by_pytorch_with_scaled_gradients():
    model, twin = model_of(), model_of()
    native, plain = WanderingConfig().build(model), WanderingConfig().build(twin)
    for each in (model, twin):
        give_gradients(each, 1)
    native.step_natively(0.5, scale=0.25)
    for parameter in twin.parameters():
        parameter.grad *= 0.25
    plain.step(0.5)
    assert same_bits(model.state_dict(), twin.state_dict())
