import pytest
import torch
from tiny import copied, model_of, plan_of, random_batch, same_bits

from assay.errors import DivergedError
from assay.train.loop import train
from assay.train.native_backend import multiplies_bf16
from assay.train.optim import AdamWConfig, MuonConfig


def spoil_gradient(model, name, value):
    """Make one number of one gradient `value` from now on."""

    def spoilt(gradient):
        gradient = gradient.clone()
        gradient.view(-1)[0] = value
        return gradient

    model.get_parameter(name).register_hook(spoilt)


def go_until_divergence(model, optimizers, steps, **fields):
    """Return the error, and whether weights and state are those after the last good step."""
    good = [(copied(model.state_dict()), copied(optimizers.state()))]
    reports = train(model, random_batch, optimizers, plan_of(steps=steps, **fields))
    with pytest.raises(DivergedError) as caught:
        good.extend((copied(model.state_dict()), copied(optimizers.state())) for _ in reports)
    weights, state = good[-1]
    unchanged = same_bits(weights, model.state_dict()) and same_bits(state, optimizers.state())
    return str(caught.value), unchanged


def on_kernels(native, *, bf16):
    """A plan's fields for the C++ kernels; skips where they do not multiply in bfloat16."""
    if bf16 and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    return {"native": True, "autocast": bf16}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()])
def test_a_step_that_was_not_finite_leaves_nothing_behind_in_the_kernels(native, bf16, optimizer):
    """A weight that is no number while one step is computed: the steps after it are sound.

    The oracle is a run in memory of its own from where the skipped step left the first one.
    """
    plan = plan_of(steps=6, on_nonfinite="skip", **on_kernels(native, bf16=bf16))
    fields = {"vocab_size": 65, "d_model": 42, "mixer": {"kind": "attention", "n_heads": 3}}
    model, twin = model_of(seed=3, **fields), model_of(seed=3, **fields)
    optimizers, others = optimizer.build(model), optimizer.build(twin)
    weight, skipped = model.embed.weight, []
    for report in train(model, random_batch, optimizers, plan):
        skipped.append(report.skipped)
        if report.step == 2:
            sound = weight.detach().clone()
            weight.data[0, 0] = torch.nan
        if report.step == 3:
            weight.data.copy_(sound)
            twin.load_state_dict(model.state_dict())
            others.load(copied(optimizers.state()))
    for _ in train(twin, random_batch, others, plan, start=3):
        pass
    assert skipped == [False, False, True, False, False, False]
    assert same_bits(twin.state_dict(), model.state_dict())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("config", [AdamWConfig(lr=1e30), MuonConfig(lr=1e30, adamw_lr=1e30)])
def test_an_absurd_rate_is_named_by_the_kernels_too(native, config, bf16):
    model = model_of(norm="none", vocab_size=65)
    fields = on_kernels(native, bf16=bf16)
    message, unchanged = go_until_divergence(
        model, config.build(model), steps=9, schedule="constant", **fields
    )
    assert message.startswith("step 2: ")
    assert "train.optimizer.lr" in message
    assert unchanged


@pytest.mark.parametrize("config", [AdamWConfig(lr=1e30), MuonConfig(lr=1e30, adamw_lr=1e30)])
def test_an_absurd_rate_is_named_with_step_and_layer_and_the_update_is_not_made(config):
    model = model_of(norm="none")  # which would bring an infinity back to order one
    message, unchanged = go_until_divergence(
        model, config.build(model), steps=9, schedule="constant"
    )
    assert message.startswith("step 2: loss ")
    assert "the output of " in message
    assert "train.optimizer.lr" in message
    assert unchanged


@pytest.mark.parametrize("name", ["embed.weight", "blocks.0.mlp.up.weight", "final_norm.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(name, value):
    model = model_of(init="torch")
    optimizers = AdamWConfig().build(model)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    with pytest.raises(DivergedError, match=rf"step 1: .* the weights: {name} is already not"):
        next(train(model, lambda step: torch.zeros(1, 3, dtype=torch.long), optimizers, plan_of()))
    assert optimizers.state() == {}


def test_the_layer_where_a_number_overflows_is_named():
    """The gate's product of 1e25 by 1e25 is the first number over 3e38."""
    model = model_of()
    with torch.no_grad():
        for part in (model.blocks[0].mlp.up, model.blocks[0].mlp.gate):
            part.weight.fill_(1e25)
    message, unchanged = go_until_divergence(model, AdamWConfig().build(model), steps=1)
    assert "the output of blocks.0.mlp" in message
    assert unchanged


@pytest.mark.parametrize("clip_norm", [1.0, None])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["embed.weight", "blocks.0.mlp.up.weight", "final_norm.weight"])
def test_a_gradient_that_is_no_number_is_named_and_the_update_is_not_made(name, value, clip_norm):
    model = model_of()
    optimizers = AdamWConfig().build(model)
    for _ in train(model, random_batch, optimizers, plan_of(steps=2)):
        pass
    spoil_gradient(model, name, value)
    message, unchanged = go_until_divergence(model, optimizers, steps=3, clip_norm=clip_norm)
    assert message.startswith("step 1: gradient norm ")
    assert f"the gradient of {name}." in message
    assert unchanged


def test_a_sum_of_squares_that_overflows_is_told_from_a_bad_gradient():
    """Each number is finite, 1e25, and their squares are not."""
    model = model_of()
    spoil_gradient(model, "embed.weight", 1e25)
    message, unchanged = go_until_divergence(model, AdamWConfig().build(model), steps=1)
    assert "it arises in the sum of squares of gradients" in message
    assert unchanged


def test_gradients_are_dropped_and_the_global_generator_is_left_alone_when_it_ends_badly():
    model = model_of(dropout=0.5)
    with torch.no_grad():
        model.blocks[0].mlp.up.weight.fill_(1e38)
        model.blocks[0].mlp.gate.weight.fill_(1e38)
    before = torch.get_rng_state()
    go_until_divergence(model, AdamWConfig().build(model), steps=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
