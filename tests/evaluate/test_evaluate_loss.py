import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.tokenizer import ByteTokenizer
from assay.data.windows import evaluation_windows
from assay.evaluate.loss import Evaluation, evaluate
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

VOCAB = 257


def model_of(**fields):
    shape = {"vocab_size": VOCAB, "max_seq_len": 32, "d_model": 16, "n_layers": 1}
    return GPT.create(decode(ModelConfig, {**shape, **fields}))


def windows_of(n, length, seed=0):
    return torch.randint(VOCAB, (n, length + 1), generator=torch.Generator().manual_seed(seed))


def ones():
    return np.ones(VOCAB, np.int64)


def uniform_model():
    """Every logit 0: each token costs ln V nats, whatever it is."""
    model = model_of(tie_embeddings=False)
    torch.nn.init.zeros_(model.unembed.weight)
    return model


@pytest.mark.parametrize(("n", "length"), [(1, 1), (5, 32), (600, 31)])
def test_the_loss_is_the_mean_over_windows_one_by_one_in_float64(n, length):
    """The last case takes three batches, the third one shorter.

    A float32 loss of order 6 is off by less than a thousand roundings of 6e-8, and their mean too.
    """
    model, windows = model_of(init="torch"), windows_of(n, length)
    found = evaluate(model, windows, ones(), contextlib.nullcontext)
    twin = model_of(init="torch").double().eval()
    losses = []
    with torch.no_grad():
        for window in windows:
            log_p = twin(window[None, :-1])[0].log_softmax(-1)
            losses.append(-log_p[torch.arange(length), window[1:]])
    expected = float(torch.cat(losses).mean())
    assert found.loss_nats == pytest.approx(expected, rel=1000 * 6e-8)
    assert found.tokens == n * length


def test_a_uniform_model_costs_ln_v_and_has_perplexity_v():
    found = evaluate(uniform_model(), windows_of(3, 8), ones(), contextlib.nullcontext)
    assert found.loss_nats == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert found.perplexity == pytest.approx(VOCAB, rel=1e-5)


@given(n=st.integers(2, 200), length=st.integers(1, 20))
def test_every_target_is_counted_once(n, length):
    """With token t weighing 2^t bytes the sum of bytes says which targets were counted."""
    ids = np.arange(n) % 50
    windows = evaluation_windows(ids, seq_len=length)
    lengths = np.array([2**t if t < 50 else 0 for t in range(VOCAB)], np.int64)
    found = evaluate(_MODEL, windows, lengths, contextlib.nullcontext)
    counted = (n - 1) // min(length, n - 1) * min(length, n - 1)
    assert found.tokens == counted
    assert found.text_bytes == sum(2 ** int(t) for t in ids[1 : 1 + counted])


_MODEL = uniform_model()


def test_bits_per_byte_by_hand_with_characters_of_many_bytes_and_an_end_of_text():
    """`é😀x`, end, `y`: 2 + 4 + 1 + 0 + 1 bytes and 9 tokens, of which the first is no target.

    Eight targets at log2(257) bits each over the 7 bytes they stand for: the end of text, which
    costs bits and is no text, makes it more than one token a byte would.
    """
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("é😀x").tolist(), tokenizer.eot_id, *tokenizer.encode("y").tolist()]
    assert len(ids) == 9
    windows = evaluation_windows(np.array(ids), seq_len=8)
    lengths = tokenizer.token_byte_lengths()
    found = evaluate(uniform_model(), windows, lengths, contextlib.nullcontext)
    assert (found.tokens, found.text_bytes) == (8, 7)
    assert found.bits_per_byte == pytest.approx(8 * math.log2(257) / 7, rel=1e-6)


def test_bits_per_byte_does_not_depend_on_how_the_text_is_cut():
    """Four bytes at 2 bits each are worth as much as two tokens of two bytes at 4 bits each."""
    fine = Evaluation(loss_nats=2 * math.log(2), tokens=4, text_bytes=4)
    coarse = Evaluation(loss_nats=4 * math.log(2), tokens=2, text_bytes=4)
    assert fine.bits_per_byte == pytest.approx(2)
    assert coarse.bits_per_byte == pytest.approx(2)


def test_a_perplexity_that_overflows_is_infinite():
    assert Evaluation(loss_nats=1e4, tokens=1, text_bytes=1).perplexity == math.inf


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_the_mode_is_restored_and_no_gradient_is_kept(training):
    model, windows = model_of(dropout=0.5).train(training), windows_of(4, 8)
    first, second = (evaluate(model, windows, ones(), contextlib.nullcontext) for _ in range(2))
    assert first == second
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_forward_pass_runs_in_the_precision_asked_for():
    model, windows = model_of(init="torch"), windows_of(4, 8)
    exact = evaluate(model, windows, ones(), contextlib.nullcontext).loss_nats
    rounded = evaluate(
        model, windows, ones(), lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    ).loss_nats
    assert 0 < abs(rounded - exact) < 0.1 * exact  # bfloat16 keeps two to three digits
