import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.windows import Windows, evaluation_windows
from assay.errors import DataError


def starts_of(windows, count):
    """With ids 0, 1, 2, ... a window's first token is where it begins."""
    rows = torch.cat([windows.batch(step) for step in range(1, count + 1)])
    assert torch.equal(rows, rows[:, :1] + torch.arange(windows.seq_len + 1))
    return rows[:, 0].tolist()


@given(
    seq_len=st.integers(1, 9), extra=st.integers(1, 60), batch=st.integers(1, 7), seed=st.integers()
)
def test_an_epoch_visits_every_window_once_and_stays_inside(seq_len, extra, batch, seed):
    n = seq_len + extra
    windows = Windows(np.arange(n), seq_len=seq_len, batch_size=batch, seed=seed)
    m = windows.n_windows
    starts = starts_of(windows, -(-3 * m // batch))
    for epoch in range(3):
        visited = sorted(starts[epoch * m : (epoch + 1) * m])
        phase = visited[0]
        assert visited == [phase + seq_len * i for i in range(m)]
        assert 0 <= phase < seq_len
        assert visited[-1] + seq_len < n
        unused = (n - 1) - m * seq_len
        assert unused < 2 * seq_len


def test_a_batch_depends_on_seed_and_step_alone():
    ids = np.random.default_rng(0).integers(0, 50, 1000).astype(np.uint16)
    one = Windows(ids, seq_len=8, batch_size=5, seed=1)
    other = Windows(ids, seq_len=8, batch_size=5, seed=1)
    forwards = [one.batch(step) for step in range(1, 90)]
    backwards = [other.batch(step) for step in range(89, 0, -1)][::-1]
    assert all(map(torch.equal, forwards, backwards))
    assert not torch.equal(Windows(ids, seq_len=8, batch_size=5, seed=2).batch(1), forwards[0])


def test_phase_and_order_change_with_the_epoch():
    windows = Windows(np.arange(10_001), seq_len=100, batch_size=99, seed=0)
    assert windows.steps_per_epoch == 1.0
    epochs = [starts_of_step(windows, step) for step in range(1, 30)]
    assert len({min(starts) for starts in epochs}) > 20  # of 100 phases, 29 draws
    assert len({tuple(s - min(starts) for s in starts) for starts in epochs}) == 29


def starts_of_step(windows, step):
    return windows.batch(step)[:, 0].tolist()


def test_the_stream_is_pinned():
    """The first draws of Philox with key (seed, epoch) = (7, 0), and 400 windows hashed."""
    draws = np.random.Philox(key=np.array([7, 0], np.uint64)).random_raw(12)
    windows = Windows(np.arange(50), seq_len=4, batch_size=11, seed=7)
    order = sorted(range(11), key=lambda i: draws[1 + i])
    assert windows.batch(1)[:, 0].tolist() == [int(draws[0]) % 4 + 4 * i for i in order]
    starts = starts_of(Windows(np.arange(1003), seq_len=10, batch_size=8, seed=42), 50)
    assert starts[:8] == GOLDEN
    assert hashlib.sha256(np.array(starts, "<i8").tobytes()).hexdigest() == GOLDEN_SHA256


GOLDEN = [986, 946, 716, 456, 106, 66, 116, 436]
GOLDEN_SHA256 = "3b76929c485b852e7070b629c519b2ba45a7a659272ce4f450c2102c16b99117"


def test_batches_are_64_bit_whatever_the_file_holds():
    windows = Windows(np.arange(9, dtype=np.uint16), seq_len=2, batch_size=3, seed=0)
    assert windows.batch(1).dtype == torch.int64
    assert windows.batch(1).shape == (3, 3)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(DataError, match=r"8 tokens found; expected at least 9 .*seq_len=8"):
        Windows(np.arange(8), seq_len=8, batch_size=1, seed=0)
    assert Windows(np.arange(9), seq_len=8, batch_size=1, seed=0).n_windows == 1


def test_steps_are_counted_from_one():
    with pytest.raises(ValueError, match="step 0 found"):
        Windows(np.arange(9), seq_len=2, batch_size=1, seed=0).batch(0)


@given(n=st.integers(2, 200), seq_len=st.integers(1, 40), limit=st.none() | st.integers(1, 150))
def test_no_target_is_evaluated_twice_and_the_limit_is_kept(n, seq_len, limit):
    rows = evaluation_windows(np.arange(n), seq_len=seq_len, max_tokens=limit)
    targets = rows[:, 1:].flatten().tolist()
    assert len(set(targets)) == len(targets)
    assert torch.equal(rows, rows[:, :1] + torch.arange(rows.shape[1]))
    assert max(targets) < n
    length = min(seq_len, n - 1)
    if limit is None:
        assert len(targets) > (n - 1) - length
    else:
        assert len(targets) <= max(limit, length)
        assert len(targets) > min(limit, n - 1) - length


def test_a_limited_evaluation_is_spread_over_the_text():
    starts = evaluation_windows(np.arange(1001), seq_len=10, max_tokens=50)[:, 0].tolist()
    assert starts == [0, 200, 400, 600, 800]


def test_a_validation_text_of_one_token_is_refused():
    with pytest.raises(DataError, match="1 token found; expected at least 2"):
        evaluation_windows(np.arange(1), seq_len=10, max_tokens=None)
