"""AdamW and the norm of gradients by the C++ kernels, beside float64 and PyTorch's own."""

from functools import partial

import pytest
import torch
from tiny import copied, model_of, same_bits

from assay.train.adamw import norm_natively
from assay.train.optim import AdamWConfig, MuonConfig

pytestmark = pytest.mark.usefixtures("native")
PIECE = 4096  # numbers that one thread takes at a time
SIZES = [1, 15, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5]


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def give_gradients(model, seed):
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = normal(*parameter.shape, seed=1000 * seed + index)


def on_threads(n_threads, act):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        return act()
    finally:
        torch.set_num_threads(before)


def big_enough_to_share():
    """A model with tensors of less and of more than a piece, none of them a whole number."""
    return model_of(d_model=72, bias=True, norm="layer", position="learned")


def test_steps_are_those_of_pytorch_in_float64():
    """Means are of numbers up to 0.3 that cancel, rounded some times to 2^-24 of them: 3e-8."""
    config = AdamWConfig(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.2)
    model, exact = big_enough_to_share(), big_enough_to_share().double()
    exact.load_state_dict(model.state_dict())
    ours, theirs = config.build(model), config.build(exact)
    for step, factor in enumerate([0.5, 1.0, 0.25], start=1):
        give_gradients(model, step)
        for mine, other in zip(model.parameters(), exact.parameters(), strict=True):
            other.grad = 0.3 * mine.grad.double()
        ours.step_natively(factor, scale=0.3)
        theirs.step(factor)
    for mine, other in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(mine.detach().double(), other.detach(), rtol=1e-6, atol=1e-7)
    found, expected = ours.state(), theirs.state()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-6, atol=3e-8)


@pytest.mark.parametrize("cls", [AdamWConfig, MuonConfig])
def test_a_scale_is_that_of_the_gradients(cls):
    """By powers of two, so to the bit; of other sizes in each step, which Muon's momentum sees."""
    ended = []
    for given in (True, False):
        model = big_enough_to_share()
        optimizers = cls().build(model)
        for step, scale in enumerate([0.125, 1.0, 0.5]):
            give_gradients(model, step)
            for parameter in model.parameters() if given else ():
                parameter.grad *= scale
            optimizers.step_natively(1.0, scale=1.0 if given else scale)
        ended.append(copied(model.state_dict()))
    assert same_bits(*ended)


def test_gradients_stay_as_they_are():
    model = big_enough_to_share()
    give_gradients(model, 1)
    before = copied({name: p.grad for name, p in model.named_parameters()})
    AdamWConfig().build(model).step_natively(1.0, scale=0.5)
    assert same_bits({name: p.grad for name, p in model.named_parameters()}, before)


@pytest.mark.parametrize("cls", [AdamWConfig, MuonConfig])
def test_bits_depend_on_no_number_of_threads(cls):
    ended = []
    for n_threads in (1, 2, 3):
        model = big_enough_to_share()
        optimizers = cls().build(model)
        for step in (1, 2):
            give_gradients(model, step)
            on_threads(n_threads, partial(optimizers.step_natively, 1.0, scale=0.5))
        ended.append(copied(model.state_dict()) | copied(optimizers.state()))
    assert same_bits(ended[0], ended[1])
    assert same_bits(ended[0], ended[2])


@pytest.mark.parametrize("cls", [AdamWConfig, MuonConfig])
def test_pytorch_goes_on_from_its_state_and_it_from_pytorchs(cls):
    """To rounding: three updates, each about the rate of 4e-3, to a hundred roundings of 2^-24."""
    ended = []
    for order in ("native torch native", "torch native torch"):
        model = big_enough_to_share()
        optimizers = cls(weight_decay=0.0).build(model)
        for step, by in enumerate(order.split(), start=1):
            give_gradients(model, step)
            if by == "native":
                optimizers.step_natively(1.0)
            else:
                optimizers.step(1.0)
            resumed = cls(weight_decay=0.0).build(model)
            resumed.load(optimizers.state())
            optimizers = resumed
        ended.append(model)
    for one, other in zip(*(model.parameters() for model in ended), strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=0, atol=3 * 4e-3 * 1e-5)


def test_a_parameter_without_a_gradient_is_left_alone():
    model = big_enough_to_share()
    optimizers, before = AdamWConfig().build(model), copied(model.state_dict())
    give_gradients(model, 1)
    first = next(iter(model.parameters()))
    first.grad = None
    optimizers.step_natively(1.0)
    name = optimizers.names[first]
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert sorted([*changed, name]) == sorted(n for n, _ in model.named_parameters())
    assert not any(key.startswith(f"{name}/") for key in optimizers.state())


def test_autograd_sees_that_weights_have_changed():
    """Or a backward pass over an older forward pass would take gradients of weights gone by."""
    model = big_enough_to_share()
    loss = model(torch.tensor([[1, 2, 3]])).square().mean()
    give_gradients(model, 1)
    AdamWConfig().build(model).step_natively(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_any_gradient_nothing_happens():
    model = big_enough_to_share()
    before = copied(model.state_dict())
    AdamWConfig().build(model).step_natively(1.0)
    assert same_bits(model.state_dict(), before)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_norm_is_that_of_float64(n_threads):
    """A piece is summed in 16 lanes of 256 numbers, each to 2^-24: 2^-24 * 256 / 2 at worst."""
    gradients = [normal(size, seed=size) * 10.0 ** (i - 3) for i, size in enumerate(SIZES)]
    expected = torch.cat([g.double() for g in gradients]).norm()
    found = on_threads(n_threads, lambda: norm_natively(gradients))
    torch.testing.assert_close(found.double(), expected, rtol=2**-17, atol=0)
    assert found == on_threads(1, lambda: norm_natively(gradients))


@pytest.mark.parametrize("size", SIZES)
def test_every_number_counts_in_the_norm(size):
    gradients = [torch.zeros(7), torch.zeros(size)]
    for at in {0, size // 2, size - 1}:
        gradients[1].zero_()[at] = 3.0
        assert norm_natively(gradients) == 3.0
        gradients[1][at] = torch.nan
        assert norm_natively(gradients).isnan()


def test_the_norm_of_nothing_is_zero():
    assert norm_natively([]) == 0
