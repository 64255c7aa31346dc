import math
from itertools import pairwise

import pytest
import torch
from scipy import optimize

from assay.generate import GenerateOptions, generate
from assay.measure.positionwise import (
    Share,
    exact_matches,
    order_loss,
    sliding_loss,
    target_losses,
)
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_logits
from assay.sampling import SamplingConfig
from assay.schema import decode

V, T = 11, 12
KINDS = ("none", "learned", "sinusoidal", "rope", "alibi")


def model_of(position="rope", n_layers=2, **fields):
    tree = {"vocab_size": V, "d_model": 16, "n_layers": n_layers, "max_seq_len": T, "dropout": 0.2}
    tree |= {"mixer": {"kind": "attention", "n_heads": 2}, "position": position} | fields
    model = GPT.create(decode(ModelConfig, tree), seed=3).double()
    with torch.no_grad():  # wide weights, so that nothing is near uniform by chance
        for p in model.parameters():
            p.mul_(4)
    return model.train()


def text_of(n, seed=0):
    return torch.randint(V, (n,), generator=torch.Generator().manual_seed(seed))


def slow_loss(model, context, target):
    """Loss of one target after one context, by the readable twin of the model."""
    logits = reference_logits(model, context[None])[0, -1]
    return float(torch.logsumexp(logits, 0) - logits[target])


@pytest.mark.parametrize("position", KINDS)
def test_the_loss_of_a_target_is_that_of_its_context_alone(position):
    model, window = model_of(position), text_of(T + 1)
    expected = [slow_loss(model.eval(), window[: t + 1], window[t + 1]) for t in range(T)]
    losses = target_losses(model.train(), window[None])
    torch.testing.assert_close(losses[0].tolist(), expected, rtol=0, atol=1e-10)
    assert model.training  # and dropout was off


@pytest.mark.slow
def test_windows_of_several_batches_are_judged_one_by_one():
    model, windows = model_of(), text_of(900 * (T + 1)).view(900, T + 1)  # two batches of 8192
    by_hand = torch.stack([target_losses(model, window[None])[0] for window in windows])
    torch.testing.assert_close(target_losses(model, windows), by_hand, rtol=0, atol=1e-10)


def test_a_sliding_window_gives_every_target_its_stated_context():
    model, ids = model_of(), text_of(60)
    length, stride, first = 10, 3, 20
    expected, judged = [], []
    for number, target in enumerate(range(first, 59)):  # 40 targets are left, 39 in whole strides
        seen = length - stride + 1 + number % stride
        judged.append(seen)
        expected.append(slow_loss(model.eval(), ids[target - seen : target], ids[target]))
    assert (min(judged), max(judged)) == (length - stride + 1, length)
    mean = math.fsum(expected) / len(expected)
    found = sliding_loss(model, ids, length=length, stride=stride, first=first)
    assert found == pytest.approx(mean, abs=1e-10)


def test_windows_that_slide_by_their_length_lie_end_to_end():
    model, ids = model_of(), text_of(5 * T + 1)
    windows = torch.stack([ids[i * T : (i + 1) * T + 1] for i in range(5)])
    whole = float(target_losses(model, windows).mean())
    assert sliding_loss(model, ids, length=T, stride=T, first=1) == pytest.approx(whole, abs=1e-10)


@pytest.mark.parametrize(
    ("length", "stride", "first"), [(8, 9, 20), (8, 0, 20), (30, 4, 20), (8, 4, 58), (8, 4, 4)]
)
def test_a_window_that_reaches_before_the_text_is_refused(length, stride, first):
    with pytest.raises(ValueError, match="expected stride <= length < first"):
        sliding_loss(model_of(), text_of(60), length=length, stride=stride, first=first)


@pytest.mark.parametrize("position", KINDS)
def test_only_a_table_is_undefined_past_its_end(position):
    model, windows = model_of(position), text_of(2 * (2 * T + 1)).view(2, -1)
    ids = windows.flatten()
    found = (
        target_losses(model, windows),
        sliding_loss(model, ids, length=T + 1, stride=2, first=T + 1),
        order_loss(model, windows, keep=1, n_permutations=2, seed=0),
        exact_matches(model, windows[:, :T], windows[:, T:]),
    )
    assert all((each is None) == (position == "learned") for each in found)
    within = text_of(2 * (T + 1)).view(2, -1)
    assert target_losses(model, within) is not None
    assert model.training


def test_one_layer_without_positions_sees_a_bag_of_words():
    windows = text_of(40 * (T + 1)).view(40, -1)
    found = order_loss(model_of("none", 1), windows, keep=1, n_permutations=3, seed=0)
    # Attention of one layer sums over a set, so permuting it changes only the order of the sum.
    assert abs(found.order_nats) < 1e-10


@pytest.mark.parametrize("position", sorted(set(KINDS) - {"none"}))
def test_every_encoding_tells_orders_apart(position):
    windows = text_of(40 * (T + 1)).view(40, -1)
    found = order_loss(model_of(position, 1), windows, keep=1, n_permutations=3, seed=0)
    assert abs(found.order_nats) > 1e-6


def test_two_layers_tell_orders_apart_without_positions():
    windows = text_of(40 * (T + 1)).view(40, -1)
    found = order_loss(model_of("none", 2), windows, keep=1, n_permutations=3, seed=0)
    assert abs(found.order_nats) > 1e-6  # Haviv et al. 2022: the causal mask counts


def test_the_order_loss_is_the_mean_over_all_permutations():
    model, window = model_of(), text_of(4 + 1)
    context, target = window[:-1], window[-1]
    orders = [[*order, 3] for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1))]
    orders.append([2, 1, 0, 3])
    losses = torch.tensor(
        [slow_loss(model.eval(), context[order], target) for order in orders], dtype=torch.float64
    )
    n = 4000
    found = order_loss(model, window[None], keep=1, n_permutations=n, seed=0)
    assert found.loss_nats == pytest.approx(float(losses[0]), abs=1e-10)
    error = float(losses.std()) / n**0.5
    assert abs(found.shuffled_nats - float(losses.mean())) < 4 * error  # 4 standard errors
    assert order_loss(model, window[None], keep=1, n_permutations=n, seed=0) == found


def test_with_nothing_kept_the_last_token_moves_too():
    model = model_of("none", 1)
    windows = text_of(40 * (T + 1)).view(40, -1)
    assert abs(order_loss(model, windows, keep=0, n_permutations=3, seed=0).order_nats) > 1e-6


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_match_is_what_greedy_decoding_writes(kept):
    model = model_of()
    prompts = text_of(60 * 4, seed=1).view(60, 4)
    options = GenerateOptions(max_new_tokens=5)
    run = generate(model.eval(), prompts.tolist(), SamplingConfig(temperature=0), options=options)
    for _ in run:
        pass
    answers = torch.tensor(run.generated)
    assert exact_matches(model, prompts, answers).tolist() == [1] * 60
    wrong = answers.clone()
    wrong[:, 2 * kept] = (wrong[:, 2 * kept] + 1) % V  # at the start, in the middle, at the end
    assert exact_matches(model, prompts, wrong).tolist() == [0] * 60


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 20), (20, 20), (193, 200)])
def test_wilson_s_interval_holds_the_shares_that_a_score_test_keeps(successes, n):
    share = successes / n

    def excess(p):
        return (share - p) ** 2 - 1.959963984540054**2 * p * (1 - p) / n

    found = Share.of(successes, n)
    assert found.value == share
    if successes:
        assert found.low == pytest.approx(optimize.brentq(excess, 1e-12, share - 1e-9), abs=1e-6)
    if successes < n:
        assert found.high == pytest.approx(
            optimize.brentq(excess, share + 1e-9, 1 - 1e-12), abs=1e-6
        )
    bounds = (0.0, found.low, found.value, found.high, 1.0)
    assert all(low <= high + 1e-12 for low, high in pairwise(bounds))
