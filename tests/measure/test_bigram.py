import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.bigram import bigram_floor_nats, entropy_nats


def test_the_floor_by_hand():
    # a b a c: after a comes b or c (one bit), after b always a; a makes two of three contexts
    assert bigram_floor_nats(np.array([0, 1, 0, 2])) == pytest.approx(2 / 3 * math.log(2))


def test_a_text_that_counts_up_has_no_uncertainty():
    assert bigram_floor_nats(np.arange(100) % 7) == pytest.approx(0, abs=1e-12)


def test_independent_tokens_leave_all_of_their_entropy():
    ids = np.random.default_rng(0).integers(0, 4, 200_000)
    # the plug-in estimate is low by (4 - 1)**2 / 2n = 2e-5 nats
    assert bigram_floor_nats(ids) == pytest.approx(math.log(4), abs=1e-4)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60))
def test_no_table_of_next_by_current_does_better(values):
    ids = np.array(values)
    counts = np.full((6, 6), 1e-9)
    np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    table = counts / counts.sum(1, keepdims=True)  # the best table there is
    loss = -np.log(table[ids[:-1], ids[1:]]).mean()
    assert loss >= bigram_floor_nats(ids) - 1e-9
    assert loss <= bigram_floor_nats(ids) + 1e-6


def test_entropy_of_a_fair_coin():
    assert entropy_nats(np.array([0, 1, 0, 1], dtype=np.uint16)) == pytest.approx(math.log(2))
