"""The tokens and the text of one training step of a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch import Tensor

from assay.data.windows import Windows
from assay.errors import ConfigError
from assay.runs.run import Progress, Run


@dataclass(frozen=True, slots=True)
class Batch:
    """What a run reads in one step.

    Attributes:
        tokens: Ids, T + 1 in a row: each but the last is read, each but the first predicted.
        texts: What each row stands for. An end of text stands for nothing, and a character that a
            row cuts through for U+FFFD.
        sha256: Of the ids as 64-bit little-endian integers, row after row.
    """

    tokens: Int[Tensor, "B T1"]
    texts: list[str]
    sha256: str


def batch_of(
    run: Run, step: int, cache: Path | None = None, progress: Progress | None = None
) -> Batch:
    """Return the batch of a step, counted from 1, from the text the run began with.

    Raises:
        ConfigError: If the run has no such step.
        DataError: If the text changed since, with both hashes.
    """
    steps = run.config.train.steps
    if not 1 <= step <= steps:
        raise ConfigError(
            f"--step: {step} found; expected 1 to {steps}, the steps of {run.folder.path}."
        )
    dataset = run.dataset(cache, progress)
    windows = Windows(
        dataset.train.ids,
        seq_len=run.config.seq_len,
        batch_size=run.config.train.batch_size,
        seed=run.config.train.seed,
    )
    tokens = windows.batch(step)
    texts = [dataset.tokenizer.decode(row) for row in tokens.tolist()]
    sha256 = hashlib.sha256(tokens.numpy().astype(np.dtype("<i8")).tobytes()).hexdigest()
    return Batch(tokens, texts, sha256)
