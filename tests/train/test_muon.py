import math
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assay.train.muon import (
    Muon,
    _by_matrix,
    orthogonalised,
)
from assay.train.native_backend import multiplies_bf16

SHAPES = [(1, 1), (1, 7), (6, 6), (6, 11), (11, 6), (5, 40), (40, 5)]
SIZES = st.integers(1, 24)


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def polar(matrix):
    """Jordan's quintic, five times, on the singular values of an SVD."""
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (u * values) @ vt


def steep(rows, columns, seed=0):
    """Singular values over eight powers of ten."""
    u, values, vt = torch.linalg.svd(normal(rows, columns, seed=seed), full_matrices=False)
    return (u * torch.logspace(0, -8, len(values), dtype=torch.float64)) @ vt


@given(SIZES, SIZES, st.integers(1, 4), st.integers(0, 99))
def test_singular_values_go_through_the_polynomial_and_vectors_stay(rows, columns, count, seed):
    """In float64; 2e4 is the growth of a rounding through the Gram matrix, see the code."""
    stack = normal(count, rows, columns, seed=seed)
    expected = torch.stack([polar(matrix) for matrix in stack])
    torch.testing.assert_close(orthogonalised(stack), expected, rtol=0, atol=2e4 * 1e-15)


@pytest.mark.parametrize("shape", [(32, 32), (32, 48), (48, 32), (16, 64), (64, 16)])
@pytest.mark.parametrize("make", [normal, steep])
def test_float32_keeps_to_a_bound_whatever_the_spectrum(make, shape):
    """A rounding of 2^-24 grows by 3.4445^8 = 2e4 in four steps: 1.2e-3 of an update of norm 1."""
    matrix = make(*shape)
    found = orthogonalised(matrix.float()[None])[0].double()
    assert torch.linalg.matrix_norm(found - polar(matrix), 2) < 2**-24 * 3.4445**8


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_end_near_one(shape):
    """All but those below 0.0016 of the norm, which a normal matrix of this size has none of."""
    values = torch.linalg.svdvals(orthogonalised(normal(3, *shape, seed=1)))
    assert 0.68 < float(values.min()) <= float(values.max()) < 1.21


def test_a_matrix_is_not_changed_by_those_it_shares_a_stack_with():
    """But for rounding: a library may multiply a larger stack in another order."""
    stack = normal(5, 8, 20)
    stack[1:] *= 1e6
    for index in range(5):
        alone = orthogonalised(stack[index : index + 1])[0]
        torch.testing.assert_close(orthogonalised(stack)[index], alone, rtol=0, atol=1e-11)


def parameters(seed, shapes=SHAPES, dtype=torch.float64):
    return [
        nn.Parameter(normal(*shape, seed=seed + i, dtype=dtype)) for i, shape in enumerate(shapes)
    ]


def give_gradients(parameters, seed):
    for index, parameter in enumerate(parameters):
        parameter.grad = normal(*parameter.shape, seed=1000 * seed + index, dtype=parameter.dtype)


def test_steps_are_the_papers_formulas_over_an_svd():
    """Nesterov's momentum as a mean, decoupled decay, an update of RMS 0.2 lr; three steps."""
    ours = parameters(0)
    optimizer = Muon(ours, lr=1.0, momentum=0.8, weight_decay=0.3)
    weights = [parameter.detach().clone() for parameter in ours]
    means = [torch.zeros_like(weight) for weight in weights]
    for step, lr in enumerate([0.1, 0.2, 0.05], start=1):
        give_gradients(ours, step)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        for i, parameter in enumerate(ours):
            means[i] = 0.8 * means[i] + 0.2 * parameter.grad
            direction = polar(0.2 * parameter.grad + 0.8 * means[i])
            update = 0.2 * math.sqrt(max(parameter.shape)) * direction
            weights[i] = (1 - lr * 0.3) * weights[i] - lr * update
    for parameter, expected in zip(ours, weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (96, 32)])
def test_steps_are_pytorchs_but_for_its_bfloat16(shape):
    """Fifteen products, each rounded by 2^-9 of terms up to 4.775 times an entry: 3.6 %."""
    ours, theirs = parameters(0, [shape], torch.float32), parameters(0, [shape], torch.float32)
    options = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1}
    pytorchs = torch.optim.Muon(theirs, **options, adjust_lr_fn="match_rms_adamw")
    mine = Muon(ours, **options)
    for step in (1, 2):
        before = ours[0].detach().clone(), theirs[0].detach().clone()
        for each, optimizer in ((ours, mine), (theirs, pytorchs)):
            give_gradients(each, step)
            optimizer.step()
        one, other = ours[0].detach() - before[0], theirs[0].detach() - before[1]
        assert float((one - other).norm() / other.norm()) < math.sqrt(15) * 4.775 * 2**-9
        assert mine.state[ours[0]].keys() == pytorchs.state[theirs[0]].keys()
        for name, value in mine.state[ours[0]].items():
            torch.testing.assert_close(value, pytorchs.state[theirs[0]][name], rtol=0, atol=0)


SETTINGS = [(0.1, 0.9, 0.0), (0.02, 0.5, 0.3), (0.4, 0.0, 0.1)]


def test_optimizers_that_step_together_step_as_they_would_alone(monkeypatch):
    """Also where a stack is cut: 200 numbers are two or three of the matrices here."""
    for bound in (1 << 24, 200):
        monkeypatch.setattr("assay.train.muon._STACK_NUMBERS", bound)
        groups = [[parameters(10 * i) for i in range(3)] for _ in range(2)]
        built = [
            [
                Muon(p, lr=lr, momentum=m, weight_decay=d)
                for p, (lr, m, d) in zip(ps, SETTINGS, strict=True)
            ]
            for ps in groups
        ]
        for step in (1, 2):
            for ps in groups:
                for index, each in enumerate(ps):
                    give_gradients(each, 10 * step + index)
            Muon.step_many(built[0])
            for optimizer in built[1]:
                optimizer.step()
        for together, alone in zip(chain(*groups[0]), chain(*groups[1]), strict=True):
            torch.testing.assert_close(together.detach(), alone.detach(), rtol=0, atol=1e-10)


def test_a_matrix_without_a_gradient_stays_and_has_no_state():
    ours = parameters(0, [(3, 4), (3, 4)])
    before = ours[1].detach().clone()
    ours[0].grad = torch.ones_like(ours[0])
    optimizer = Muon(ours, lr=0.1, momentum=0.9, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(ours[1], before)
    assert ours[1] not in optimizer.state


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def bf16(native, request):
    """Precisions of the kernels' products."""
    if request.param and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    return request.param


def orthogonalised_natively(stack, *, bf16):
    """What a step adds to weights of zeros: without momentum and decay, at a rate of 1."""
    weights = [nn.Parameter(torch.zeros_like(matrix)) for matrix in stack]
    for weight, matrix in zip(weights, stack, strict=True):
        weight.grad = matrix.clone()
    lr = 1 / (0.2 * math.sqrt(max(stack[0].shape)))
    Muon(weights, lr=lr, momentum=0.0, weight_decay=0.0).step_natively(scale=1.0, bf16=bf16)
    return [-weight.detach() for weight in weights]


# A rounding of 2^-24 grows by 3.4445^4 through the Gram matrix in three iterations of the kernels,
# and by 3.4445^2 as a part of what is made orthogonal in the two after them.
KERNELS_FP32 = 2**-24 * 3.4445**6


def spectral(matrix):
    return float(torch.linalg.matrix_norm(matrix.double(), 2))


@pytest.mark.parametrize("shape", [*SHAPES, (32, 48), (48, 32), (100, 33), (33, 100), (130, 530)])
@pytest.mark.parametrize("make", [normal, steep])
def test_the_kernels_err_no_more_than_their_products_or_pytorch(bf16, make, shape):
    matrix = make(*shape)
    expected = polar(matrix)
    found = spectral(orthogonalised_natively(matrix.float()[None], bf16=bf16)[0] - expected)
    if not bf16:
        assert found < KERNELS_FP32
        return
    wide = matrix if shape[0] <= shape[1] else matrix.mT
    theirs = _by_matrix((wide / wide.norm()).bfloat16()[None])[0]
    theirs = theirs if shape[0] <= shape[1] else theirs.mT
    assert found < spectral(theirs - expected) + 0.01


@pytest.mark.parametrize("shape", [(530, 1600), (1600, 530)])
def test_sums_longer_than_the_kernels_take_at_once_keep_to_the_bound(native, shape):
    matrix = normal(*shape)
    found = orthogonalised_natively(matrix.float()[None], bf16=False)[0]
    assert spectral(found - polar(matrix)) < KERNELS_FP32


def test_steps_of_the_kernels_are_those_of_float64_but_for_their_products(bf16):
    """In each step a direction errs by the bounds above; momentum and decay are of float32."""
    shapes = [(64, 64), (32, 96), (96, 32)]
    ours, theirs = parameters(0, shapes, torch.float32), parameters(0, shapes, torch.float32)
    theirs = [nn.Parameter(parameter.double()) for parameter in theirs]
    options = {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.5}
    mine, exact = Muon(ours, **options), Muon(theirs, **options)
    allowed = 0.0
    for step, scale in enumerate([0.5, 2.0, 1.0], start=1):
        give_gradients(ours, step)
        for one, other in zip(ours, theirs, strict=True):
            other.grad = scale * one.grad.double()
        mine.step_natively(scale=scale, bf16=bf16)
        exact.step()
        allowed += 0.1 * 0.2 * (math.sqrt(15) * 4.775 * 2**-9 if bf16 else KERNELS_FP32)
        for one, other in zip(ours, theirs, strict=True):
            norm = math.sqrt(max(one.shape) * min(one.shape))  # of an orthogonal direction, scaled
            assert float((one - other).detach().norm()) < allowed * norm
            means = (o.state[p]["momentum_buffer"] for o, p in ((mine, one), (exact, other)))
            torch.testing.assert_close(*means, rtol=1e-6, atol=1e-7, check_dtype=False)


def test_the_kernels_give_a_matrix_the_same_bits_in_every_company(bf16):
    stack = normal(5, 40, 24).float()
    alone = [orthogonalised_natively(matrix[None], bf16=bf16)[0] for matrix in stack]
    torch.set_num_threads(3)
    for found, expected in zip(orthogonalised_natively(stack, bf16=bf16), alone, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_a_matrix_of_zeros_stays_one_with_the_kernels_too(bf16, shape):
    for found in orthogonalised_natively(torch.zeros(2, *shape), bf16=bf16):
        assert not found.any()
