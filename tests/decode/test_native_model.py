import copy
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shaken import CONFIGS, LENGTH, VOCAB, label, model_of, small
from torch import nn

from assay.decode.native_model import MAX_ENTRIES, NativeModel, TokenBatch
from assay.decode.quantized import QuantizedModel
from assay.decode.weights import rounded
from assay.native.kinds import unsupported
from assay.nn.norm import NORMS, NormVariant

TOKENS = torch.randint(VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(3)).tolist()
KINDS = pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])


def exact(model, tokens):
    """The oracle: PyTorch in float64."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(torch.tensor([tokens]))[0]


def feed_of(*parts):
    feed = TokenBatch()
    for row, first, tokens in parts:
        feed.add(row, first, tokens, n_wanted=len(tokens))
    return feed


def check_close(found, model, tokens, *, rounding=0.0):
    """As near to float64 as PyTorch in float32, or four times that and a little.

    Sums run in another order here, and the exponential is 2 units off: 64 roundings of the largest
    logit are more than both make in two layers of 40 channels. `rounding` is of what meets rounded
    weights: by 2^-9 of each number, or by 2^-15 of the largest of a row, which is four times the
    root of their mean square; over 14 products, three deviations.
    """
    expected = exact(model, tokens)
    with torch.no_grad():
        own = (model(torch.tensor([tokens]))[0] - expected).abs().max()
    little = (64 * torch.finfo(torch.float32).eps + rounding) * expected.abs().max()
    assert (found - expected).abs().max() <= 4 * own + little


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_every_architecture_is_read_as_by_pytorch(native, config):
    model = model_of(config)
    assert unsupported(model) is None
    program = NativeModel(native, QuantizedModel(model, "fp32"), n_rows=2, room=LENGTH)
    check_close(program.logits(feed_of((1, 0, TOKENS))), model, TOKENS)


@KINDS
def test_packed_weights_stand_for_the_rounded_model(native, weights):
    model = small(bias=True, mlp="gelu")
    program = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH)
    rounding = {"fp32": 0.0, "bf16": 12 * 2**-9, "int8": 12 * 2**-15}[weights]
    twin = rounded(model, weights)
    check_close(program.logits(feed_of((0, 0, TOKENS))), twin, TOKENS, rounding=rounding)


@KINDS
@settings(max_examples=25)
@given(data=st.data())
def test_logits_are_the_same_bits_however_a_text_is_cut_and_whoever_is_beside_it(
    native, weights, data
):
    mlp = {"kind": "swiglu", "d_ff": data.draw(st.integers(61, 64))}
    model = small(mixer={"kind": "attention", "n_kv_heads": 2}, d_model=40, mlp=mlp)
    whole = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH).logits(
        feed_of((0, 0, TOKENS))
    )
    program = NativeModel(native, QuantizedModel(model, weights), n_rows=3, room=LENGTH)
    cuts = data.draw(st.lists(st.integers(1, LENGTH - 1), unique=True, max_size=5).map(sorted))
    row = data.draw(st.integers(0, 2))
    for first, end in zip([0, *cuts], [*cuts, LENGTH], strict=True):
        others = [
            (other, 0, data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6)))
            for other in data.draw(st.sets(st.integers(0, 2))) - {row}
        ]
        parts = [*others, (row, first, TOKENS[first:end])]
        found = program.logits(feed_of(*parts))[-(end - first) :]
        assert torch.equal(found, whole[first:end])


@KINDS
def test_logits_are_the_same_bits_on_one_thread_and_on_two(native, weights):
    model = small(vocab_size=3000, d_model=64, mlp={"kind": "swiglu", "d_ff": 200})

    def logits(threads):
        torch.set_num_threads(threads)
        program = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH)
        return program.logits(feed_of((0, 0, TOKENS)))

    assert torch.equal(logits(1), logits(2))


@KINDS
def test_token_by_token_two_threads_find_what_one_finds_at_once(native, weights):
    """One entry has work for one thread where it is rounded, for two where it is multiplied."""
    model = small(vocab_size=3000, d_model=64, mlp={"kind": "swiglu", "d_ff": 200})
    at_once = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH)
    expected = at_once.logits(feed_of((0, 0, TOKENS)))
    torch.set_num_threads(2)
    program = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH)
    for position, token in enumerate(TOKENS):
        found = program.logits(feed_of((0, position, [token])))
        assert torch.equal(found[0], expected[position]), position


def test_a_long_text_takes_several_passes(native):
    tokens = [n % VOCAB for n in range(2 * MAX_ENTRIES + 3)]
    model = small(max_seq_len=len(tokens))
    program = NativeModel(native, QuantizedModel(model, "fp32"), n_rows=1, room=len(tokens))
    feed = TokenBatch()
    feed.add(0, 0, tokens, n_wanted=2)
    expected = exact(model, tokens)[-2:]
    torch.testing.assert_close(program.logits(feed).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_row_that_does_not_fit_is_refused(native):
    """The kernels would read and write beyond it."""
    program = NativeModel(native, QuantizedModel(small(), "fp32"), n_rows=1, room=LENGTH - 1)
    with pytest.raises(AssertionError, match="fits into its slots"):
        program.logits(feed_of((0, 0, TOKENS)))


def test_slots_are_used_again_once_no_window_shows_them(native):
    window, n_tokens = 5, 40
    tokens = [n % VOCAB for n in range(n_tokens)]
    model = small(mixer={"kind": "attention", "window": window}, max_seq_len=n_tokens)
    program = NativeModel(native, QuantizedModel(model, "fp32"), n_rows=1, room=window - 1 + 3)
    parts = [program.logits(feed_of((0, n, tokens[n : n + 3]))) for n in range(0, n_tokens, 3)]
    check_close(torch.cat(parts), model, tokens)


def test_a_number_that_is_not_finite_comes_out_and_is_not_hidden(native):
    model = small(mlp="relu")
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[3, 2] = torch.nan
    program = NativeModel(native, QuantizedModel(model, "fp32"), n_rows=1, room=LENGTH)
    assert program.logits(feed_of((0, 0, TOKENS))).isnan().all()


@KINDS
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_meets_rounded_weights_may_be_no_number_either(native, weights, bad):
    model = small()
    with torch.no_grad():
        model.final_norm.weight[2] = bad
    program = NativeModel(native, QuantizedModel(model, weights), n_rows=1, room=LENGTH)
    assert not program.logits(feed_of((0, 0, TOKENS))).isfinite().any()


class DoublingConfig(NormVariant):
    """A stranger's norm: no kernel knows it."""

    kind: Literal["doubling"] = "doubling"

    def build(self, d_model):
        return nn.Threshold(float("-inf"), 0.0)


def test_what_the_kernels_cannot_read_is_named():
    assert unsupported(small().double()) == "weights in float64 on cpu"
    try:
        assert unsupported(small(norm=DoublingConfig())) == "model.norm=doubling"
    finally:
        NORMS.remove(DoublingConfig)
