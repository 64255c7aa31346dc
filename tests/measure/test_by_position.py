import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.measure.by_position import by_position, mutual_information_nats

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40))
def test_mutual_information_by_its_definition(pairs):
    table = np.zeros((4, 6))
    for a, b in pairs:
        table[a, b] += 1 / len(pairs)
    expected = sum(
        table[a, b] * math.log(table[a, b] / (table[a].sum() * table[:, b].sum()))
        for a in range(4)
        for b in range(6)
        if table[a, b]
    )
    before, after = (np.array(side) for side in zip(*pairs, strict=True))
    assert mutual_information_nats(before, after) == pytest.approx(expected, abs=1e-12)


def test_small_dtypes_do_not_overflow():
    before, after = np.indices((20, 20), dtype=np.uint8).reshape(2, -1)  # 400 pairs, each once
    assert mutual_information_nats(before, after) == pytest.approx(0, abs=1e-12)


def test_independent_tokens_have_the_information_of_their_shuffles():
    """With 8 tokens and 400 x 25 pairs the plug-in estimate is high by 49 / 20000 nats."""
    tokens = np.random.default_rng(0).integers(0, 8, (400, 51))
    for stretch in by_position(tokens, [1, 26, 51]):
        assert stretch.n_pairs == 10_000
        information = stretch.information_nats
        assert information.shuffled == pytest.approx(49 / 20_000, rel=0.1)
        assert information.low < information.found < information.high
        assert stretch.repetition.low < stretch.repetition.found < stretch.repetition.high
        assert stretch.repetition.shuffled == pytest.approx(1 / 8, abs=0.01)
        assert information.p > 0.05


def test_structure_is_found_where_it_is_and_not_elsewhere():
    """Ten tokens that count up modulo 5, then noise: ln 5 nats, then none."""
    rng = np.random.default_rng(1)
    structured = (rng.integers(0, 5, (200, 1)) + np.arange(10)) % 5
    tokens = np.concatenate([structured, rng.integers(0, 5, (200, 11))], axis=1)
    early, late = by_position(tokens, [1, 10, 21])
    assert early.information_nats.found == pytest.approx(math.log(5), abs=0.01)
    assert early.information_nats.p == 1 / 201
    assert early.repetition.found == 0
    assert early.repetition.excess == pytest.approx(-0.2, abs=0.01)
    assert late.information_nats.p > 0.05
    assert abs(late.information_nats.excess) < 0.01
    assert (early.first, early.end, late.first, late.end) == (1, 10, 10, 21)


def test_one_token_for_ever_repeats_and_says_nothing():
    (stretch,) = by_position(np.full((3, 9), 7), [1, 9], n_shuffles=5)
    assert stretch.repetition.found == 1
    assert stretch.repetition.p == 1  # every shuffle is as high: nothing to be told from
    assert stretch.information_nats.found == 0
    assert stretch.n_pairs == 24


def test_a_repetition_belongs_to_the_stretch_of_its_second_token():
    tokens = np.array([[0, 1, 2, 2, 3]])  # the pair (2, 2) ends at position 3
    early, late = by_position(tokens, [1, 3, 5], n_shuffles=1)
    assert early.repetition.found == 0
    assert late.repetition.found == 1 / 2


def test_the_baseline_never_pairs_across_stretches():
    tokens = np.array([[0, 0, 0, 1, 1, 1]] * 5)
    early, late = by_position(tokens, [1, 3, 6], n_shuffles=10)
    assert early.repetition.shuffled == 1
    assert 0 < late.repetition.shuffled < 1


def test_the_same_seed_gives_the_same_baseline():
    tokens = np.random.default_rng(2).integers(0, 4, (20, 10))
    assert by_position(tokens, [1, 10], seed=3) == by_position(tokens, [1, 10], seed=3)
    assert by_position(tokens, [1, 10], seed=3) != by_position(tokens, [1, 10], seed=4)


@pytest.mark.parametrize("edges", [[0, 5], [5], [1, 5, 5], [1, 11], []])
def test_edges_that_make_no_stretch_get_a_sentence(edges):
    with pytest.raises(ConfigError, match="expected rising positions from 1 or more to at most 10"):
        by_position(np.zeros((2, 10), np.int64), edges)
