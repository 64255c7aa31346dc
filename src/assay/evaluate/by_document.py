"""Loss on a validation text document by document: what resampling documents needs.

Shapes: N windows, T targets of each, n tokens of the text, G documents or stretches.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from assay.data.prepare import Dataset
from assay.data.windows import evaluation_windows
from assay.measure.positionwise import target_losses
from assay.nn.model import GPT

DocumentKind = Literal["document", "group", "stretch"]
"""What is resampled: documents, groups of neighbouring ones, or stretches of the text."""
FEWEST_DOCUMENTS = 10
"""With fewer in the text, stretches of it stand for documents."""
STRETCHES = 50
MOST_GROUPS = 1000
"""More documents are judged in groups of neighbours."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a model on each document, or stretch, of a text.

    Attributes:
        by: `document`, `group` of neighbouring documents, or `stretch` of the text.
        nats: Summed over the targets of each, (G,).
        tokens: Targets of each, (G,); the last few of the text may be in none.
        text_bytes: Bytes of text these targets stand for, (G,).
    """

    by: DocumentKind
    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    text_bytes: NDArray[np.float64]


def losses_by_document(
    model: GPT,
    dataset: Dataset,
    *,
    seq_len: int,
    max_tokens: int | None,
    precision: Callable[[], AbstractContextManager[object]],
) -> Losses:
    """Return the loss on each document of the validation side, over the windows of `evaluate`.

    Args:
        model: In evaluation mode.
        dataset: Its text.
        seq_len: T.
        max_tokens: Targets in all, as the run was judged by.
        precision: Makes the context in which a forward pass runs.
    """
    ids = dataset.val.ids
    places = evaluation_windows(np.arange(len(ids)), seq_len=seq_len, max_tokens=max_tokens)
    lengths = _byte_lengths(dataset)
    by, groups = _groups(dataset, lengths)
    windows = torch.from_numpy(ids[places.numpy()].astype(np.int64))
    nats = _nats(model, windows, precision).numpy().ravel()
    targets = places[:, 1:].numpy().ravel()
    index, n_groups = groups[targets], int(groups.max()) + 1
    return Losses(
        by=by,
        nats=_sums(index, nats, n_groups),
        tokens=np.bincount(index, minlength=n_groups),
        text_bytes=_sums(index, lengths[targets], n_groups),
    )


def _sums(
    index: NDArray[np.int64], values: NDArray[np.float64], n_groups: int
) -> NDArray[np.float64]:
    return np.bincount(index, values, n_groups).astype(np.float64)


def _nats(
    model: GPT,
    windows: Int[Tensor, "N T1"],
    precision: Callable[[], AbstractContextManager[object]],
) -> Float[Tensor, "N T"]:
    """Return the loss of every target, in float64."""
    with precision():
        losses = target_losses(model, windows)
    assert losses is not None  # the model was trained on windows of this length
    return losses


def _byte_lengths(dataset: Dataset) -> NDArray[np.float64]:
    """Return the bytes each token of the validation side stands for, (n,); their sum is the text's.

    A tokenizer that drops or rewrites text has tokens of other lengths, so they are scaled.
    """
    lengths = dataset.tokenizer.token_byte_lengths().astype(np.float64)[dataset.val.ids]
    return lengths * (dataset.val.n_bytes / max(1.0, float(lengths.sum())))


def _groups(
    dataset: Dataset, lengths: NDArray[np.float64]
) -> tuple[DocumentKind, NDArray[np.int64]]:
    """Return what the groups are, and that of each token, (n,).

    Stretches are cut by bytes, so that they are the same text whatever the tokenizer.
    """
    starts, n_tokens = dataset.val.document_starts, len(lengths)
    n_documents = len(starts)
    if n_documents < FEWEST_DOCUMENTS:
        middle = np.cumsum(lengths) - lengths / 2
        return "stretch", (middle * STRETCHES / lengths.sum()).astype(np.int64).clip(
            0, STRETCHES - 1
        )
    of_token = np.searchsorted(starts, np.arange(n_tokens), side="right") - 1
    if n_documents <= MOST_GROUPS:
        return "document", of_token
    return "group", of_token * MOST_GROUPS // n_documents
