"""The kernels against each other, against one written out score by score, and at their edges.

Float64 comparisons hold to 1e-10 as in `test_contract`. In float32 a kernel does some 10^3
roundings of 2^-24 a value, on values of order 1: 10^-4 at worst.
"""

from dataclasses import replace

import pytest
import torch
from cover import CASES, LENGTH, shaken, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.nn import attention
from assay.nn.attention import Context, attend, n_blocks
from assay.nn.attention_mask import MaskSpec
from assay.nn.reference import reference_logits

EXACT = {"rtol": 1e-10, "atol": 1e-10}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three queries, so that a few tokens make several."""
    monkeypatch.setattr(attention, "_BLOCK", 3)


def by_hand(q, k, v, sight):
    """One score at a time, from the words of `MaskSpec`."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        padding = 0 if sight.padding is None else int(sight.padding[b])
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            for i in range(sight.n_queries):
                here = sight.n_keys - sight.n_queries + i
                first = 0 if sight.window is None else max(0, here - sight.window + 1)
                seen = [
                    j for j in range(first, here + 1) if j + sight.first_key >= padding or j == here
                ]
                scores = torch.stack([q[b, h, i] @ k[b, g, j] for j in seen])
                scores = scores / q.shape[-1] ** 0.5
                if sight.by_distance is not None:
                    scores = scores + sight.by_distance[h, [here - j for j in seen]]
                out[b, h, i] = scores.softmax(0) @ v[b, g, seen]
    return out


@st.composite
def situations(draw):
    """Queries, keys and values with a sight of any kind."""
    n_groups, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3]))
    n_queries, past = draw(st.integers(1, 13)), draw(st.integers(0, 5))
    padded, biased = draw(st.booleans()), draw(st.booleans())
    first_key = draw(st.integers(0, 3))
    g = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    sight = MaskSpec(
        n_queries=n_queries,
        n_keys=n_queries + past,
        first_key=first_key,
        window=draw(st.none() | st.integers(1, 15)),
        padding=torch.tensor([0, draw(st.integers(0, n_queries + past))]) if padded else None,
        by_distance=torch.randn(n_groups * group, n_queries + past, generator=g).double()
        if biased
        else None,
    )
    q, k, v = (
        torch.randn(2, heads, length, 4, generator=g, dtype=torch.float64)
        for heads, length in (
            (n_groups * group, n_queries),
            (n_groups, n_queries + past),
            (n_groups, n_queries + past),
        )
    )
    return q, k, v, sight


@pytest.mark.parametrize("kernel", ["fused", "blocks"])
@settings(max_examples=60)
@given(situation=situations())
def test_a_kernel_computes_what_the_words_say(kernel, situation):
    q, k, v, sight = situation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK", 3)
        found = attend(q, k, v, Context.of(None, sight, kernel, q))
    torch.testing.assert_close(found, by_hand(q, k, v, sight), **EXACT)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("padding", [None, torch.tensor([0, 2])], ids=["full", "padded"])
@pytest.mark.parametrize("past", [0, 4])
def test_flex_is_told_the_same_in_its_own_words(biased, window, padding, past):
    by_distance = torch.randn(4, 7 + past) if biased else None
    sight = MaskSpec(7, 7 + past, 0, window, padding, by_distance)
    q, k, v = (torch.randn(2, h, t, 16) for h, t in ((4, 7), (2, 7 + past), (2, 7 + past)))
    found, expected = (attend(q, k, v, Context.of(None, sight, c, q)) for c in ("flex", "fused"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_flex_refuses_to_drop_weights_in_a_sentence():
    q = torch.randn(1, 2, 4, 16)
    context = Context.of(None, MaskSpec(4, 4), "flex", q)
    with pytest.raises(ConfigError, match=r"model\.mixer\.dropout: 0\.5 found; expected 0 with"):
        attend(q, q, q, context, dropout=0.5)


@every_case
def test_logits_and_gradients_by_blocks_are_those_of_the_fused_kernel(name, small_blocks):
    model, tokens = shaken(name), tokens_of(2, LENGTH)
    found = {}
    for kernel in ("fused", "blocks"):
        model.kernel = kernel
        logits = model(tokens)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)
        grads = torch.autograd.grad(logits.flatten() @ weights, list(model.parameters()))
        found[kernel] = (logits.detach(), *grads)
    model.kernel = "fused"
    for a, b in zip(found["fused"], found["blocks"], strict=True):  # some sums are over thousands
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * max(1.0, float(a.abs().max())))


@every_case
@pytest.mark.shapes_checked_by_others
def test_changing_a_token_leaves_the_logits_before_it_bit_equal_in_blocks(name, small_blocks):
    model, tokens = shaken(name), tokens_of(1, LENGTH)
    model.kernel = "blocks"
    try:
        before = model(tokens)
        for t in range(LENGTH):
            changed = tokens.clone()
            changed[0, t] = (changed[0, t] + 1) % model.config.vocab
            after = model(changed)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t], before[:, t])
    finally:
        model.kernel = "fused"


@every_case
@pytest.mark.parametrize("kernel", ["fused", "blocks"])
@pytest.mark.shapes_checked_by_others
def test_reading_in_chunks_and_padded_through_the_cache_equals_the_twin(name, kernel, small_blocks):
    model, lengths = shaken(name), (LENGTH, 4)
    tokens, padding = tokens_of(2, LENGTH), torch.tensor([LENGTH - n for n in lengths])
    model.kernel, cache = kernel, model.new_cache()
    try:
        parts = [model(part, cache, padding) for part in tokens.split((5, 1, 3), dim=1)]
    finally:
        model.kernel = "fused"
    for row, length in enumerate(lengths):
        alone = reference_logits(model, tokens[row : row + 1, -length:])[0]
        torch.testing.assert_close(torch.cat(parts, dim=1)[row, -length:], alone, **EXACT)


def test_a_block_does_not_touch_the_keys_that_none_of_its_queries_sees(small_blocks):
    """A key that is not a number would make every query one whose product with it is taken."""
    q, k, v = (torch.randn(1, 2, 12, 4) for _ in range(3))
    sight = MaskSpec(12, 12, window=2)
    k[:, :, 9:] = torch.nan  # seen from query 9 on, which starts a block
    assert not attend(q, k, v, Context.of(None, sight, "blocks", q))[:, :, :9].isnan().any()
    k[:] = 0
    v[:, :, :2] = torch.nan  # left behind by the window from query 3 on, which starts a block
    assert not attend(q, k, v, Context.of(None, sight, "blocks", q))[:, :, 3:].isnan().any()


@pytest.mark.parametrize("window", [None, 5])
def test_every_key_a_query_sees_is_in_its_piece_and_no_column_is_there_in_vain(window):
    sight = MaskSpec(12, 16, window=window)
    for first in range(12):
        for end in range(first + 1, 13):
            piece = sight.tile_for_queries(first, end)
            seen = sight.visible(sight.whole, torch.device("cpu"))[0, 0, first:end].any(0).nonzero()
            assert (piece.first_key, piece.end_key - 1) == (seen.min(), seen.max())


def test_few_queries_make_one_block_and_many_make_four():
    assert [n_blocks(t) for t in (1, 64, 255, 256, 511, 512, 1024, 8192)] == [
        1, 1, 1, 2, 3, 4, 4, 4,
    ]  # fmt: skip


@pytest.mark.parametrize("kernel", ["fused", "blocks"])
def test_dropped_weights_average_to_those_kept(kernel, small_blocks):
    """Each output is a sum of T weights, kept with 1 - p and divided by it: the mean is unchanged.

    Its variance is p / (1 - p) Σ (w v)² ≤ p / (1 - p) max v², over n draws divided by n.
    """
    draws, p = 4000, 0.3
    q, k, v = (torch.randn(1, 2, 7, 4) for _ in range(3))
    rows = [t.expand(draws, -1, -1, -1) for t in (q, k, v)]
    context = Context.of(None, MaskSpec(7, 7), kernel, q)
    kept, dropped = attend(q, k, v, context), attend(*rows, context, dropout=p)
    bound = 5 * (p / (1 - p) / draws) ** 0.5 * v.abs().max()
    assert (dropped.mean(0) - kept[0]).abs().max() < bound
    assert (dropped[0] - dropped[1]).abs().max() > 0.01


@pytest.mark.parametrize("by_distance", [None, torch.randn(4, 7).double()], ids=["plain", "biased"])
def test_blocks_under_vmap_equal_a_loop_when_only_some_inputs_are_stacked(
    by_distance, small_blocks
):
    q = torch.randn(3, 2, 4, 7, 4, dtype=torch.float64)
    k, v = (torch.randn(2, 2, 7, 4, dtype=torch.float64) for _ in range(2))
    context = Context.of(None, MaskSpec(7, 7, by_distance=by_distance), "blocks", q)
    together = torch.func.vmap(lambda q: attend(q, k, v, context))(q)
    alone = torch.stack([attend(one, k, v, context) for one in q])
    torch.testing.assert_close(together, alone, **EXACT)


def test_a_mask_is_drawn_for_the_fused_kernel_alone_and_only_where_one_is_needed():
    x = torch.randn(1, 2)
    plain, windowed = MaskSpec(4, 4), replace(MaskSpec(4, 4), window=2)
    assert Context.of(None, plain, "fused", x).mask is None
    assert Context.of(None, windowed, "fused", x).mask is not None
    assert Context.of(None, windowed, "blocks", x).mask is None
    assert MaskSpec(1, 9).mask(x.device, x.dtype) is None
    assert MaskSpec(2, 9).mask(x.device, x.dtype) is not None
