"""Dropout of the C++ kernels.

The oracle gives masks of its own (`dropout_masks.py`) to the model of `nn/model.py`, whose
gradients are autograd's in float64.
"""

import copy

import numpy as np
import pytest
import torch
from architectures import config_of, label, model_of, tokens_of
from dropout_masks import SEED, Masks, philox
from test_kernels import _FP32, PRECISIONS, worst_error

from assay.nn.loss import next_token_loss
from assay.schema import decode, override
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.native_backend import gradients, multiplies_bf16, token_losses
from assay.train.optim import AdamWConfig
from assay.train.plan import ExecutionPlan

CONFIGS = [
    config_of(dropout=p, mixer=mixer | {"qk_norm": False}, **fields)
    for p, mixer, fields in (
        (0.1, {"kind": "attention", "dropout": 0.1}, {"position": "learned", "bias": True}),
        (0.0, {"kind": "attention", "dropout": 0.5, "window": 5}, {"position": "alibi"}),
        (0.3, {"kind": "attention", "n_kv_heads": 2, "dropout": 0.0}, {"block": "parallel"}),
        (
            0.2,
            {"kind": "attention", "n_heads": 2, "dropout": 0.2},
            {"block": "post", "norm": "rms"},
        ),
        (
            0.2,
            {"kind": "attention", "window": 70, "dropout": 0.9},
            {"block": "plain", "d_model": 48},
        ),
    )
] + [config_of(dropout=0.4, mixer="none", position="learned")]


@pytest.fixture(autouse=True)
def _able(native, request):
    asked = getattr(request.node, "callspec", None)
    if asked and asked.params.get("bf16") and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000" * 4, "00000000" * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff" * 4, "ffffffff" * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a8885a308d313198a2e03707344",
            "a4093822299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_oracle_draws_the_words_that_its_authors_publish(counter, key, words):
    """Random123 1.14, `kat_vectors`, philox4x32 with 10 rounds."""
    counter, key = (
        [int(text[i : i + 8], 16) for i in range(0, len(text), 8)] for text in (counter, key)
    )
    assert philox([counter], key)[0].tolist() == [int(word, 16) for word in words.split()]


def learnt(model, tokens, *, seed=SEED, bf16=False):
    model.zero_grad()
    loss = gradients(model, tokens, bf16=bf16, seed=seed, pieces=1, apart=True)
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def expected(model, tokens, *, bf16=False):
    twin = copy.deepcopy(model).train()
    twin = twin if bf16 else twin.double()
    with Masks(model.config), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = next_token_loss(twin, tokens)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in twin.named_parameters()}


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_gradients_are_those_of_autograd_with_the_same_masks(config, bf16):
    model, tokens = model_of(config), tokens_of()
    loss, ours = learnt(model, tokens, bf16=bf16)
    value, theirs = expected(model, tokens)
    bound = _FP32
    if bf16:
        bound = 1.5 * worst_error(expected(model, tokens, bf16=True)[1], theirs)[1] + 0.01
    assert loss == pytest.approx(value, rel=0.1 * bound)
    name, error = worst_error(ours, theirs)
    assert error < bound, (name, error, bound)


@pytest.mark.parametrize(("rows", "seq_len"), [(1, 1), (1, 3), (2, 33), (5, 64), (17, 65)])
def test_every_size_of_batch_is_cut_into_whole_strips(rows, seq_len):
    model, tokens = model_of(CONFIGS[0]), tokens_of(rows, seq_len)
    (loss, ours), (value, theirs) = learnt(model, tokens), expected(model, tokens)
    assert loss == pytest.approx(value, rel=_FP32)
    assert worst_error(ours, theirs)[1] < _FP32


def test_bits_do_not_depend_on_the_number_of_threads():
    model, tokens = model_of(CONFIGS[0]), tokens_of(5, 90)
    one_loss, one = learnt(model, tokens)
    torch.set_num_threads(3)
    loss, other = learnt(model, tokens)
    assert loss == one_loss
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_drops_others():
    model, tokens = model_of(CONFIGS[0]), tokens_of()
    losses = {learnt(model, tokens, seed=seed)[0] for seed in (0, 1, 1 << 32, 2**64 - 1)}
    assert len(losses) == 4


def test_a_model_that_is_judged_drops_nothing():
    config = override(CONFIGS[0], {"dropout": 0.0, "mixer.dropout": 0.0})
    model, tokens = model_of(CONFIGS[0]), tokens_of()
    learnt(model, tokens)
    found, whole = (token_losses(m, tokens, bf16=False, rows=3) for m in (model, model_of(config)))
    assert torch.equal(found, whole)


@pytest.mark.parametrize("p", [1e-6, 0.999999])
def test_a_probability_finer_than_the_words_is_the_nearest(p):
    """To 2^-16: nothing goes, or everything. With everything gone a model learns of nothing."""
    model, tokens = model_of(config_of(dropout=p, block="pre")), tokens_of()
    loss, found = learnt(model, tokens)
    if p < 0.5:
        whole = model_of(config_of(dropout=0.0, block="pre"))
        assert loss == learnt(whole, tokens)[0]
    else:
        assert np.isfinite(loss)
        assert not found["blocks.0.mlp.up.weight"].any()


def losses_at_rest(*, start=0, pieces=1):
    """Losses over four steps on pieces of two equal rows: dropout alone tells them apart.

    At a rate of 1e-30 no weight moves.
    """
    model, fields = model_of(CONFIGS[0]), {"batch_size": 2 * pieces, "micro_batches": pieces}
    plan = ExecutionPlan(
        decode(TrainConfig, fields | {"steps": 4}), torch.device("cpu"), False, native=True
    )
    optimizers = AdamWConfig(lr=1e-30).build(model)
    batch = tokens_of(1).repeat(2 * pieces, 1)
    reports = train(model, lambda step: batch, optimizers, plan, start=start)
    return [report.loss_nats for report in reports]


def test_a_run_draws_anew_in_each_step_and_micro_batch_and_the_same_again_from_any_step():
    losses = losses_at_rest()
    assert len(set(losses)) == 4
    assert losses_at_rest(start=2) == losses[2:]
    assert losses_at_rest(pieces=2) != losses
