"""From token ids to batches: a pure function of (seed, step).

Shapes: B windows in a batch, T the length trained on, T1 = T + 1 tokens: position t predicts t + 1.
"""

from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError

Tokens = NDArray[np.integer[Any]]


@final
class Windows:
    """Training windows in an order that (seed, step) alone decides; the step is the whole cursor.

    Epoch e draws a phase and a permutation from (seed, e). Windows of T targets lie end to end from
    the phase on, and each is visited once. Every epoch has the same number of windows, one fewer
    than might fit where the phase needs the room, so up to 2T tokens at the ends sit an epoch out.
    The draws are raw Philox numbers, which no version of numpy changes.

    Source: Salmon et al. 2011, doi:10.1145/2063384.2063405 (Philox).
    """

    def __init__(self, ids: Tokens, *, seq_len: int, batch_size: int, seed: int) -> None:
        """Cut `ids` (n,) into windows; they are read when a batch is asked for.

        Raises:
            DataError: When there are fewer than T + 1 tokens.
        """
        if len(ids) < seq_len + 1:
            raise DataError(
                f"training text: {len(ids)} tokens found; expected at least {seq_len + 1} for "
                f"one window of train.seq_len={seq_len}. Lower train.seq_len or give more text."
            )
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self.n_windows = max(1, (len(ids) - seq_len) // seq_len)
        self._ids = ids
        self._epochs: dict[int, NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every window is visited once."""
        return self.n_windows / self.batch_size

    def batch(self, step: int) -> Int[Tensor, "B T1"]:
        """Return the tokens of a step, counted from 1; a batch may span epochs."""
        if step < 1:
            raise ValueError(f"step {step} found; steps are counted from 1.")
        places = range((step - 1) * self.batch_size, step * self.batch_size)
        starts = [self._starts(p // self.n_windows)[p % self.n_windows] for p in places]
        return _gather(self._ids, np.array(starts), self.seq_len)

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Return where the epoch's windows begin, in the order of their visit."""
        if epoch not in self._epochs:
            self._epochs = {e: s for e, s in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = self._drawn(epoch)
        return self._epochs[epoch]

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        key = np.array([self.seed % 2**64, epoch], np.uint64)
        draws = np.random.Philox(key=key).random_raw(1 + self.n_windows)
        phases = min(self.seq_len, len(self._ids) - self.n_windows * self.seq_len)
        order = np.argsort(draws[1:], kind="stable")
        return int(draws[0] % phases) + self.seq_len * order.astype(np.int64)


def evaluation_windows(
    ids: Tokens, *, seq_len: int, max_tokens: int | None = None
) -> Int[Tensor, "N T1"]:
    """Return fixed windows that lie end to end: every target at most once, the same every time.

    Args:
        ids: The validation tokens, (n,).
        seq_len: T, the targets of a window. The last targets, fewer than T, are left out.
        max_tokens: At most so many targets (at least one window), in windows spread evenly.

    A text shorter than a window gives one window of what there is.

    Raises:
        DataError: When there are fewer than two tokens.
    """
    if len(ids) < 2:
        raise DataError(
            f"validation text: {len(ids)} token found; expected at least 2, one to predict from. "
            "Raise data.val_fraction or give more text."
        )
    length = min(seq_len, len(ids) - 1)
    fit = (len(ids) - 1) // length
    wanted = fit if max_tokens is None else min(fit, max(1, max_tokens // length))
    starts = np.arange(wanted) * fit // wanted * length
    return _gather(ids, starts, length)


def _gather(ids: Tokens, starts: NDArray[np.int64], length: int) -> Int[Tensor, "N T1"]:
    places = starts[:, None] + np.arange(length + 1)
    return torch.from_numpy(ids[places].astype(np.int64))
