"""The chunked loss against cross-entropy on whole logits.

In float64 both sides do some 10^3 roundings of 2^-53 on values up to 10: 1e-10 is ample. Float32:
sums of V terms and N rows in another order, 10^3 roundings of 2^-24 relative to the largest.
"""

import math

import pytest
import torch
from cover import CASES, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from assay.nn import loss as loss_module
from assay.nn.head import at_least_float32
from assay.nn.loss import chunked_loss, next_token_loss
from assay.nn.model import GPT
from assay.schema import override

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def plain_loss(features, weight, targets, soft_cap):
    logits = at_least_float32(F.linear(features, weight))
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    return F.cross_entropy(logits, targets)


def case(n_rows, width, vocab, seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(n_rows, width, generator=g, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=g, dtype=dtype).requires_grad_()
    return features, weight, torch.randint(vocab, (n_rows,), generator=g)


@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 11)),
    chunk=st.integers(1, 60),
    soft_cap=st.none() | st.floats(0.5, 20),
    scale=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_are_those_of_whole_logits(sizes, chunk, soft_cap, scale, seed):
    features, weight, targets = case(*sizes, seed)
    whole = plain_loss(features, weight, targets, soft_cap)
    pieces = chunked_loss(features, weight, targets, soft_cap=soft_cap, chunk_logits=chunk)
    torch.testing.assert_close(pieces, whole, **EXACT)
    expected = torch.autograd.grad(scale * whole, (features, weight))
    found = torch.autograd.grad(scale * pieces, (features, weight))
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_the_gradient_is_that_of_finite_differences(soft_cap):
    features, weight, targets = case(5, 3, 7, seed=0)
    torch.autograd.gradcheck(
        lambda x, w: chunked_loss(x, w, targets, soft_cap=soft_cap, chunk_logits=14),
        (features, weight),
    )


@pytest.fixture
def tiny_chunks(monkeypatch):
    """A model of 11 tokens takes the chunked path, a few rows at a time."""
    seen = []
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 40)
    real = loss_module.chunked_loss

    def noted(features, *rest, **options):
        seen.append(features.shape[0])
        return real(features, *rest, **options, chunk_logits=40)

    monkeypatch.setattr(loss_module, "chunked_loss", noted)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_a_model_has_equal_loss_and_gradients_on_both_paths(name, monkeypatch, request):
    model, tokens = GPT.create(CASES[name], seed=1).double().train(), tokens_of(3, 6)
    found = []
    for path in ("plain", "chunked"):
        seen = request.getfixturevalue("tiny_chunks") if path == "chunked" else []
        torch.manual_seed(3)
        loss = next_token_loss(model, tokens)
        found.append((loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))))
        assert seen == ([15] if path == "chunked" else [])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * max(1.0, float(a.abs().max())))


def test_a_loss_without_gradients_is_equal_and_takes_none():
    features, weight, targets = case(9, 4, 11, seed=1)
    with torch.no_grad():
        found = chunked_loss(features, weight, targets, soft_cap=None, chunk_logits=30)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain_loss(features, weight, targets, None), **EXACT)


def test_under_autocast_products_are_rounded_and_sums_are_not():
    """Both sides round inputs and logits to 2^-9 relative: logits of order 8 are off by 2^-6."""
    features, weight, targets = case(64, 64, 500, seed=2, dtype=torch.float32)
    exact = plain_loss(features, weight, targets, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_loss(features, weight, targets, soft_cap=None, chunk_logits=5000)
    assert found.dtype == torch.float32
    assert 0 < abs(found - exact) < 2**-6
    d_features, d_weight = torch.autograd.grad(found, (features, weight))
    expected = torch.autograd.grad(exact, (features, weight))
    assert d_weight.dtype == torch.float32
    for a, b in zip((d_features, d_weight), expected, strict=True):
        # A probability is off by the error of its logit, some 2^-6, the products by 2^-8 more.
        assert 0 < (a - b).norm() / b.norm() < 2**-5


def test_a_vocabulary_of_certain_guesses_has_the_loss_of_its_margin():
    """ln(1 + (V - 1) e^-m) for a margin m over all other tokens; exact where p rounds to 1."""
    for margin in (1.0, 50.0):
        weight = torch.zeros(1000, 1, dtype=torch.float64)
        weight[3] = margin
        loss = chunked_loss(
            torch.ones(4, 1, dtype=torch.float64),
            weight,
            torch.full((4,), 3),
            soft_cap=None,
            chunk_logits=2000,
        )
        expected = math.log1p(999 * math.exp(-margin))
        assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_stacked_models_have_the_losses_and_gradients_of_each_alone():
    cases = [case(6, 3, 7, seed=s) for s in range(3)]
    features, weight, targets = (torch.stack(parts) for parts in zip(*cases, strict=True))

    def run(x, w, t):
        return chunked_loss(x, w, t, soft_cap=3.0, chunk_logits=14)

    together = torch.func.vmap(run)(features, weight, targets)
    grads = torch.autograd.grad(together.sum(), (features, weight))
    for index, (x, w, t) in enumerate(cases):
        alone = run(x, w, t)
        torch.testing.assert_close(together[index], alone, **EXACT)
        for stacked, own in zip(grads, torch.autograd.grad(alone, (x, w)), strict=True):
            torch.testing.assert_close(stacked[index], own, **EXACT)


def test_no_more_logits_exist_at_once_than_allowed():
    n_rows, vocab, chunk = 64, 500, 4 * 500
    features, weight, targets = case(n_rows, 4, vocab, seed=0, dtype=torch.float32)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = torch.utils._pytree.tree_leaves(out)
            largest.extend(t.numel() for t in made if isinstance(t, torch.Tensor))
            return out

    with Watch():
        chunked_loss(features, weight, targets, soft_cap=1.0, chunk_logits=chunk).backward()
    assert max(largest) == max(chunk, weight.numel())


def test_the_chunked_path_is_taken_above_the_threshold_only():
    small = next(iter(CASES.values()))
    model = GPT.create(override(small, {"vocab_size": 1 << 20, "tie_embeddings": True}))
    at, above = torch.zeros(1, 17, dtype=torch.long), torch.zeros(1, 18, dtype=torch.long)
    names = [type(next_token_loss(model, tokens).grad_fn).__name__ for tokens in (at, above)]
    assert names == ["NllLossBackward0", "ChunkedLossBackward"]
