"""`tie_embeddings=0.5`: embedding and output matrix are one for half of the steps, then two."""

import pytest
import torch
from tiny import copied, model_of, plan_of, random_batch, same_bits

from assay.count import count
from assay.errors import ConfigError
from assay.nn.model import ModelConfig
from assay.schema import config_hash, decode
from assay.train.loop import train
from assay.train.native_backend import multiplies_bf16
from assay.train.optim import OPTIMIZERS, AdamWConfig

STEPS = 8
HALF = {"tie_embeddings": 0.5}


def descent(share, cls=AdamWConfig, *, native=False, autocast=False, wide=False, **fields):
    """A model, its reports so far and its matrices after every step."""
    model = model_of(tie_embeddings=share)
    model = model.double() if wide else model
    optimizers = cls().build(model)
    plan = plan_of(steps=STEPS, native=native, autocast=autocast, **fields)
    seen = []
    for report in train(model, random_batch, optimizers, plan):
        seen.append((report, copied(model.state_dict()), copied(optimizers.state())))
    return seen


def test_while_tied_it_is_the_model_of_one_matrix():
    """In float64: some thousand roundings a step on numbers of order one, over four steps."""
    fields = {"clip_norm": 0.05, "schedule": "constant", "wide": True}
    ours, oracle = (descent(share, **fields) for share in (0.5, True))
    for step in range(STEPS // 2):
        report, weights, _ = ours[step]
        expected, tied, _ = oracle[step]
        assert report.loss_nats == pytest.approx(expected.loss_nats, abs=1e-10)
        assert report.grad_norm == pytest.approx(expected.grad_norm, abs=1e-10)
        for name, value in tied.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-10)
    assert ours[5][0].loss_nats != pytest.approx(oracle[5][0].loss_nats, abs=1e-6)


def ways():
    yield "torch", {}
    yield "torch, in pieces", {"micro_batches": 2}
    yield "torch, exact", {"exact_rows": 1}
    yield "native", {"native": True}
    yield "native, exact", {"native": True, "exact_rows": 1}
    if multiplies_bf16():
        yield "native, bf16", {"native": True, "autocast": True}


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("fields", [pytest.param(f, id=name) for name, f in ways()])
def test_both_matrices_and_their_states_are_equal_to_the_bit_and_then_part(native, cls, fields):
    for step, (_, weights, state) in enumerate(descent(0.5, cls, **fields), start=1):
        same = torch.equal(weights["embed.weight"], weights["unembed.weight"])
        assert same == (step <= STEPS // 2)
        states = [
            {key.partition("/")[2]: v for key, v in state.items() if key.startswith(f"{name}/")}
            for name in ("embed.weight", "unembed.weight")
        ]
        assert same_bits(*states) == same


def test_a_share_of_the_steps_is_not_rounded_down_by_floating_point():
    config = decode(ModelConfig, {"tie_embeddings": 0.29})
    assert [config.equal_until(steps) for steps in (100, 10, 3)] == [29, 2, 0]
    assert decode(ModelConfig, {"tie_embeddings": True}).equal_until(100) == 0


def test_both_matrices_are_counted():
    sizes = {share: count(model_of(tie_embeddings=share).config) for share in (True, False, 0.5)}
    assert sizes[0.5].parameters == sizes[False].parameters > sizes[True].parameters
    assert sizes[0.5].parameters == sum(p.numel() for p in model_of(**HALF).parameters())


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.5, 2])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ConfigError, match="tie_embeddings: "):
        decode(ModelConfig, {"tie_embeddings": share})


def test_the_settings_from_before_keep_their_hashes():
    hashes = {
        share: config_hash(decode(ModelConfig, {"tie_embeddings": share}))
        for share in (True, False, 0.5)
    }
    assert len(set(hashes.values())) == 3
    assert hashes[True] == config_hash(ModelConfig())
