"""Dropout of the C++ kernels.

The oracle draws the words itself, with NumPy, from Philox4x32-10 as its authors publish it, and
gives the masks to the model of `nn/model.py`, whose gradients are autograd's in float64.
"""

import copy
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import config_of, label, model_of, tokens_of
from test_kernels import _FP32, PRECISIONS, worst_error
from torch.overrides import TorchFunctionMode

from assay.nn.loss import next_token_loss
from assay.schema import decode, override
from assay.train.config import TrainConfig
from assay.train.kernels import gradients, multiplies_bf16, token_losses
from assay.train.loop import train
from assay.train.optim import AdamWConfig
from assay.train.plan import Plan

SEED = 0x123456789ABCDEF
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


def philox(counter, key):
    """Return the four words of each counter (N, 4)."""
    x = [np.asarray(counter)[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = (np.uint64(word) for word in key)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [(p1 >> half) ^ x[1] ^ k0, p1 & low, (p0 >> half) ^ x[3] ^ k1, p0 & low]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(x, 1)


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


def factors(shape, p, place, plane=0):
    """Return what dropout multiplies a matrix by.

    Row r and column c take half r % 8 (low ones first) of the words of counter (c, r / 8).
    """
    rows, columns = shape
    strips = -(-rows // 8)
    each = np.array([[c, s, plane, place] for s in range(strips) for c in range(columns)])
    words = philox(each, (SEED & 0xFFFFFFFF, SEED >> 32)).reshape(strips, columns, 4)
    halves = np.stack([words & 0xFFFF, words >> 16], -1).reshape(strips, columns, 8)
    halves = halves.transpose(0, 2, 1).reshape(-1, columns)[:rows]
    bound = round(65536 * p)
    return torch.from_numpy((halves >= bound) * (65536 / (65536 - bound)))


class Masks(TorchFunctionMode):
    """Multiplies by the masks of the kernels wherever a model drops, in the order it does."""

    def __init__(self, config):
        super().__init__()
        after = [0] if config.dropout else []
        for layer in range(config.n_layers if config.dropout else 0):
            after += [3 * layer + 1] * (config.mixer.kind != "none") + [3 * layer + 2]
        self.after, self.layer, self.config = iter(after), count(), config

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = dict(kwargs or {})
        if func is F.dropout and given["training"] and given["p"] > 0:
            x, p = args[0], given["p"]
            masks = factors((x.shape[:-1].numel(), x.shape[-1]), p, next(self.after))
            return x * masks.view_as(x).to(x.dtype)
        if func is F.scaled_dot_product_attention and given["dropout_p"] > 0:
            return self.attention(*args, **given)
        return func(*args, **given)

    def attention(self, q, k, v, *, attn_mask, dropout_p, is_causal):
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights, place = scores.softmax(-1), 3 * next(self.layer) + 3
        planes = range(weights.shape[0] * weights.shape[1])
        masks = [factors(weights.shape[-2:], dropout_p, place, plane) for plane in planes]
        return (weights * torch.stack(masks).view_as(weights)).to(v.dtype) @ v


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
    plan = Plan(decode(TrainConfig, fields | {"steps": 4}), torch.device("cpu"), False, native=True)
    optimizers = AdamWConfig(lr=1e-30).build(model)
    batch = tokens_of(1).repeat(2 * pieces, 1)
    reports = train(model, lambda step: batch, optimizers, plan, start=start)
    return [report.loss_nats for report in reports]


def test_a_run_draws_anew_in_each_step_and_micro_batch_and_the_same_again_from_any_step():
    losses = losses_at_rest()
    assert len(set(losses)) == 4
    assert losses_at_rest(start=2) == losses[2:]
    assert losses_at_rest(pieces=2) != losses
