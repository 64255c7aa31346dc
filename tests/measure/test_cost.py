"""Slopes planted in synthetic times; FLOPs against the closed forms of the article's A.4."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from assay.count import count
from assay.errors import ConfigError
from assay.measure.cost import (
    cached_step,
    counted_flops,
    counted_step_flops,
    crossover,
    exact_slope,
    filled_cache,
    forward_pass,
    interleaved_seconds,
    last_logits,
    log_slope,
    quadratic_term,
    training_step,
)
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode, override

SIZES = [64, 128, 256, 512, 1024]


def standard(**changes):
    """A block of attention and a GELU of width 4 D: the one for which A.4's formulas are meant."""
    config = decode(
        ModelConfig,
        {"vocab_size": 50, "max_seq_len": 64, "d_model": 32, "n_layers": 3, "mlp": "gelu"},
    )
    return override(config, changes)


def noisy(exponent, *, rounds, rng, spread=0.1):
    """Times of a·xᵖ under log-normal noise: slow rounds as wholes, and points by themselves."""
    exact = 3e-6 * np.array(SIZES, float) ** exponent
    slow = rng.normal(size=(rounds, 1))
    return exact * np.exp(spread * (slow + rng.normal(size=(rounds, len(SIZES)))))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7, 2.0])
def test_an_exact_power_law_gives_its_exponent_without_width(exponent):
    found = log_slope(SIZES, np.tile(3e-6 * np.array(SIZES, float) ** exponent, (4, 1)))
    assert found.value == pytest.approx(exponent, abs=1e-12)
    assert found.high - found.low < 1e-12
    assert found.rounds == 4


def test_each_round_gives_the_least_squares_slope_of_scipy():
    costs = noisy(1.3, rounds=6, rng=np.random.default_rng(1))
    slopes = [stats.linregress(np.log(SIZES), np.log(row)).slope for row in costs]
    interval = stats.t.interval(0.95, 5, np.mean(slopes), stats.sem(slopes))
    found = log_slope(SIZES, costs)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(slopes), *interval))


def test_a_planted_exponent_lies_in_95_of_100_intervals():
    rng, n = np.random.default_rng(2), 2000
    found = [log_slope(SIZES, noisy(1.5, rounds=6, rng=rng)) for _ in range(n)]
    covered = np.mean([slope.low <= 1.5 <= slope.high for slope in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)


def test_slow_rounds_do_not_widen_the_interval():
    costs = noisy(1.0, rounds=6, rng=np.random.default_rng(3))
    slowed = costs * np.array([[1], [9], [1], [1], [30], [1]])
    assert log_slope(SIZES, slowed).high == pytest.approx(log_slope(SIZES, costs).high)


@pytest.mark.parametrize(
    ("sizes", "costs"),
    [
        (SIZES, np.ones((1, 5))),
        ([64, 64], np.ones((3, 2))),
        ([0, 64], np.ones((3, 2))),
        ([32, 64], np.array([[1.0, 2.0], [0.0, 2.0]])),
    ],
)
def test_what_has_no_slope_is_refused_with_a_sentence(sizes, costs):
    with pytest.raises(ConfigError, match="found; expected"):
        log_slope(sizes, costs)


def test_a_planted_quadratic_term_comes_back_and_a_straight_line_has_none():
    assert quadratic_term(SIZES, [7 + 3 * t - 5 * t**2 for t in SIZES]) == 5
    assert quadratic_term(SIZES, [7 + 3 * t for t in SIZES]) == 0
    assert quadratic_term(SIZES, [0, 0, 0, 0, 1]) > 0


class Clock:
    """A clock that only work advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_each_point_is_timed_once_a_round_and_preparing_is_not():
    clock, done = Clock(), []

    def point(place):
        def prepare():
            clock.now += 1000.0

            def work():
                done.append(place)
                clock.now += place + 0.125 * (len(done) > 3)  # the first round is not counted

            return work

        return prepare

    found = interleaved_seconds([point(p) for p in (1, 2, 4)], rounds=5, clock=clock)
    assert found.tolist() == [[1.125, 2.125, 4.125]] * 5
    rounds = [done[i : i + 3] for i in range(0, 18, 3)]
    assert all(sorted(visited) == [1, 2, 4] for visited in rounds)
    assert len({tuple(visited) for visited in rounds}) > 1  # not always in one order


def test_fewer_than_two_rounds_are_refused():
    with pytest.raises(ConfigError, match="rounds: 1 of 1 points found"):
        interleaved_seconds([lambda: lambda: None], rounds=1)


@pytest.mark.parametrize("n_tokens", [1, 7, 64])
def test_counted_flops_are_those_of_the_article_made_exact(n_tokens):
    d, layers, vocab = 32, 3, 50
    found = counted_flops(standard(), n_tokens)
    assert found.attention == 4 * layers * n_tokens**2 * d
    assert found.matrices == 24 * layers * n_tokens * d**2 + 2 * n_tokens * d * vocab
    assert found.total == count(standard(), seq_len=n_tokens).forward_flops


@pytest.mark.parametrize("n_tokens", [2, 64])
def test_a_cached_step_costs_what_one_token_costs(n_tokens):
    found = counted_step_flops(standard(), n_tokens)
    assert found.attention == 4 * 3 * n_tokens * 32
    assert found.total == count(standard(), seq_len=n_tokens).decode_flops


@pytest.mark.parametrize("d_model", [16, 64])
def test_the_t2_term_overtakes_at_six_widths(d_model):
    assert crossover(standard(d_model=d_model), most=4096) == 6 * d_model
    assert (
        crossover(standard(d_model=d_model, position="learned", max_seq_len=8), most=2048)
        == 6 * d_model
    )


def test_the_crossover_is_the_first_whole_number_that_crosses():
    config = standard(mlp={"kind": "gelu", "d_ff": 37})
    first = crossover(config)
    blocks = [counted_flops(config, t).matrices - 2 * t * 32 * 50 for t in (first - 1, first)]
    scores = [counted_flops(config, t).attention for t in (first - 1, first)]
    assert scores[0] < blocks[0]
    assert scores[1] >= blocks[1]


def test_without_attention_nothing_crosses():
    assert crossover(standard(mixer="none", position="none")) is None


def test_the_slope_of_a_sum_lies_between_those_of_its_terms():
    flops = [counted_flops(standard(), t).total for t in SIZES]
    assert 1 < exact_slope(SIZES, flops) < 2
    assert exact_slope(SIZES, [counted_flops(standard(), t).attention for t in SIZES]) == (
        pytest.approx(2, abs=1e-12)
    )


def test_a_filled_cache_holds_2_l_t_d_numbers():
    model = GPT.create(standard())
    for n_tokens in (1, 13, 64):
        cache = filled_cache(model, torch.zeros(2, n_tokens, dtype=torch.long), room=n_tokens)
        assert cache.nbytes == 2 * 4 * (2 * 3 * n_tokens * 32)
        assert cache.nbytes == 2 * count(model.config, seq_len=n_tokens).cache_bytes_fp32


def test_what_is_timed_does_what_it_says():
    """A cached step reads one token; a training step changes weights, the others do not."""
    model, read = GPT.create(standard()), []
    hook = model.embed.register_forward_hook(lambda _, given, __: read.append(given[0].shape[1]))
    before = model.embed.weight.clone()
    tokens = torch.zeros(1, 9, dtype=torch.long)
    for prepared, expected in [
        (forward_pass(model, tokens), [9]),
        (last_logits(model, tokens), [9]),
        (cached_step(model, tokens), [1]),
    ]:
        for _ in range(2):  # a second time costs the same
            work = prepared()
            read.clear()
            work()
            assert read == expected
    assert torch.equal(before, model.embed.weight)
    training_step(model, tokens, torch.optim.SGD(model.parameters(), lr=0.1))()()
    assert not torch.equal(before, model.embed.weight)
    hook.remove()
