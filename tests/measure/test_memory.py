"""Bytes against those written out by hand, and against closed forms in T, L and D."""

import pytest
import torch
from torch import nn

from assay.measure.attention import ArticleAttention, by_hand, by_kernel, random_heads
from assay.measure.memory import Live, training_memory
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

FLOAT = 4


def saved_bytes(module, loss):
    return training_memory(module, loss).saved


def forward_peak_bytes(work):
    with torch.no_grad(), Live() as live:
        work()
    return live.peak


def test_a_chain_of_products_saves_the_inputs_of_each():
    """tanh saves its result, a linear layer its input (and its weight, which is not counted)."""
    module = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 2, bias=False))
    x = torch.ones(5, 8)
    expected = FLOAT * (5 * 8 + 5 * 16)  # the input; tanh's result, which the next layer takes
    assert saved_bytes(module, lambda: module(x).sum()) == expected


def test_the_peak_is_the_largest_sum_held_at_once():
    """Of four chained steps without gradients two results live at a time."""
    x = torch.ones(100)
    assert forward_peak_bytes(lambda: (((x + 1) + 1) + 1) + 1) == 2 * FLOAT * 100
    assert forward_peak_bytes(lambda: [x + 1, x + 1, x + 1]) == 3 * FLOAT * 100
    assert forward_peak_bytes(lambda: x.view(10, 10).mT[2:]) == 0
    assert forward_peak_bytes(lambda: x.clone().mul_(2)) == FLOAT * 100


def test_a_backward_pass_counts_the_gradients_it_leaves():
    module = nn.Linear(10, 30, bias=False)
    x = torch.ones(1, 10)
    memory = training_memory(module, lambda: module(x).sum())
    assert memory.saved == FLOAT * 10
    assert memory.forward_peak == FLOAT * (30 + 1)
    assert memory.peak >= FLOAT * 10 * 30
    assert module.weight.grad is None


def model_of(n_layers=2, d_model=32):
    sizes = {"vocab_size": 32, "max_seq_len": 512, "d_model": d_model, "n_layers": n_layers}
    return GPT.create(decode(ModelConfig, sizes | {"mlp": "gelu"}))


def saved_of(model, n_tokens):
    tokens = torch.zeros(1, n_tokens + 1, dtype=torch.long)
    return saved_bytes(model, lambda: next_token_loss(model, tokens))


def test_the_same_pass_is_counted_the_same_twice():
    model, tokens = model_of(), torch.zeros(2, 33, dtype=torch.long)
    found = [training_memory(model, lambda: next_token_loss(model, tokens)) for _ in range(2)]
    assert found[0] == found[1]


@pytest.mark.slow
def test_what_a_fused_model_saves_is_linear_in_tokens_and_in_layers():
    by_tokens = [saved_of(model_of(), t) for t in (64, 128, 256)]
    assert by_tokens[2] - by_tokens[1] == pytest.approx(2 * (by_tokens[1] - by_tokens[0]), rel=1e-6)
    by_layers = [saved_of(model_of(n_layers=n), 64) for n in (1, 2, 3)]
    assert by_layers[2] - by_layers[1] == by_layers[1] - by_layers[0] > 0


def test_recomputing_saves_only_what_enters_each_block():
    model = model_of()
    whole = saved_of(model, 64)
    model.recompute = True
    assert saved_of(model, 64) < whole / 2


@pytest.mark.slow
def test_attention_by_hand_saves_all_t2_weights_and_the_fused_kernel_none():
    def saved(n_tokens, attention):
        heads = random_heads((1, 4, n_tokens, 8), torch.float32, seed=0)
        return saved_bytes(nn.Identity(), lambda: attention(*heads).sum())

    def second_difference(attention):
        one, two, three = (saved(t, attention) for t in (64, 128, 192))
        return three - 2 * two + one

    pairs = 4 * 2 * 64**2  # of four heads: what t² adds twice over in 64, 128, 192
    assert second_difference(by_hand) == pairs * (FLOAT + 1 / 4)  # the weights; one mask for all
    assert second_difference(lambda q, k, v: by_kernel(q, k, v, "fused")) == 0


def test_multihead_attention_as_the_article_calls_it_holds_more_than_it_must():
    x = torch.randn(1, 128, 32, generator=torch.Generator().manual_seed(0))
    as_called, fused = (ArticleAttention(32, 4, need_weights=need) for need in (True, False))
    one, other = (saved_bytes(m, lambda m=m: m(x).sum()) for m in (as_called, fused))
    assert one - other > FLOAT * 4 * 128**2 / 2
    fused.load_state_dict(as_called.state_dict())
    torch.testing.assert_close(as_called(x), fused(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["fused", "blocks"])
def test_every_kernel_computes_what_the_formula_says(kernel):
    """Float64 rounds at 1.1e-16; sums of 300 such terms of size one stay below 1e-12."""
    heads = random_heads((2, 3, 300, 8), torch.float64, seed=1)
    assert (by_hand(*heads) - by_kernel(*heads, kernel)).abs().max() < 1e-12


def test_the_formula_by_hand_is_that_of_one_query_at_a_time():
    q, k, v = (t.detach() for t in random_heads((1, 1, 5, 3), torch.float64, seed=2))
    for t in range(5):
        scores = torch.stack([q[0, 0, t] @ k[0, 0, s] / 3**0.5 for s in range(t + 1)]).exp()
        expected = sum(w * v[0, 0, s] for s, w in enumerate(scores / scores.sum()))
        torch.testing.assert_close(by_hand(q, k, v)[0, 0, t], expected, rtol=1e-13, atol=0)
