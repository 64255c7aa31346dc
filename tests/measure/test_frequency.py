import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.frequency import loss_by_rank, token_counts, token_ranks


def test_ranks_are_those_of_a_worked_example():
    counts = token_counts(np.array([3, 3, 3, 1, 1, 4, 0], np.uint16), vocab_size=6)
    assert counts.tolist() == [1, 2, 0, 3, 1, 0]
    assert token_ranks(counts).tolist() == [3, 2, 5, 1, 4, 6]


def test_buckets_are_those_of_a_worked_example():
    counts = np.array([1, 2, 0, 3, 1, 0])
    targets = np.array([3, 3, 1, 0, 2])
    losses = np.array([1.0, 3.0, 5.0, 7.0, 11.0])
    found = loss_by_rank(losses, targets, counts, ends=(1, 3, 4))
    assert [(b.first, b.last, b.targets, b.loss_nats) for b in found] == [
        (1, 1, 2, 2.0),
        (2, 3, 2, 6.0),
        (4, 4, 0, None),
        (5, 6, 1, 11.0),
    ]


@given(
    counts=st.lists(st.integers(0, 5), min_size=4, max_size=30),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_buckets_weighted_by_their_targets_give_the_whole(counts, data, seed):
    vocab = len(counts)
    ends = sorted(data.draw(st.sets(st.integers(1, vocab - 1), max_size=3)))
    random = np.random.default_rng(seed)
    targets, losses = random.integers(vocab, size=50), random.random(50)
    found = loss_by_rank(losses, targets, np.array(counts), ends)
    assert sum(b.targets for b in found) == 50
    total = math.fsum(b.targets * b.loss_nats for b in found if b.loss_nats is not None)
    assert total == pytest.approx(losses.sum(), abs=1e-12 * 50)
    # a token in an earlier bucket is never rarer than one in a later bucket
    ordered = sorted(range(vocab), key=lambda token: (-counts[token], token))
    by_hand = [
        sum(int((targets == token).sum()) for token in ordered[b.first - 1 : b.last]) for b in found
    ]
    assert by_hand == [b.targets for b in found]


@pytest.mark.parametrize("ends", [(3, 2), (0,), (6,), (2, 2)])
def test_ranks_that_do_not_increase_are_refused(ends):
    with pytest.raises(ValueError, match="expected increasing ranks"):
        loss_by_rank(np.ones(1), np.zeros(1, int), np.ones(6, int), ends)
