"""Which text trains and which validates. Never a random window: neighbours would leak."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from assay.data.config import DataConfig
from assay.data.corpus import Corpus, Document, Scan
from assay.errors import DataError

Side = Literal["train", "val"]
FEWEST_DOCUMENTS = 10


@dataclass(frozen=True, slots=True)
class Split:
    """A split that has been decided on.

    Attributes:
        kind: `auto` is resolved by now.
        val_documents: By document: the ones that validate. Empty by tail.
        train_chars: By tail: how many characters train, counted from the beginning.
    """

    kind: Literal["document", "tail"]
    val_documents: frozenset[int]
    train_chars: int


def decide_split(corpus: Corpus, config: DataConfig) -> Split:
    """Resolve `config.split`: by document from ten different documents on, else by tail.

    By document: documents are visited in the order of their SHA-256, which no renaming and no
    reordering of files changes, and validate until `val_fraction` of the bytes is reached. One
    that would take the side past twice the fraction is passed over; when all are, the smallest
    validates. Equal texts stay on one side. By tail: the first int((1 - f) n) characters train.

    Raises:
        DataError: When one of the sides would be empty.
    """
    alike = _alike(corpus.scan)
    kind = config.split
    if kind == "auto":
        kind = "document" if len(alike) >= FEWEST_DOCUMENTS else "tail"
    if kind == "tail":
        return _by_tail(corpus, config.val_fraction)
    if len(alike) < 2:
        raise DataError(
            f"data.split: one distinct document found in {corpus.n_documents}; expected two or "
            "more. Set data.split=tail, or say where documents begin by data.document_start."
        )
    return Split("document", _validating(alike, corpus.scan, config.val_fraction), 0)


def sides(corpus: Corpus, split: Split) -> Iterator[tuple[Side, Document, bool]]:
    """Yield (side, document, whole), in order; false marks the head of the one a tail split cut."""
    start = 0
    for number, document in enumerate(corpus.documents()):
        end = start + corpus.scan.lengths[number]
        if split.kind == "document":
            yield ("val" if number in split.val_documents else "train"), document, True
        elif start < split.train_chars < end:
            head, tail = _cut(document, split.train_chars - start)
            yield "train", head, False
            yield "val", tail, True
        else:
            yield ("train" if end <= split.train_chars else "val"), document, True
        start = end


def _by_tail(corpus: Corpus, fraction: float) -> Split:
    train_chars = int((1 - fraction) * corpus.n_chars)
    if not 0 < train_chars < corpus.n_chars:
        raise DataError(
            f"data.text: {corpus.n_chars} character found; expected at least two, one to train "
            "on and one to validate. Name more text."
        )
    return Split("tail", frozenset(), train_chars)


def _alike(scan: Scan) -> dict[bytes, list[int]]:
    """Group the documents by their text's SHA-256."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for document in range(len(scan.sizes)):
        groups[scan.digest(document)].append(document)
    return groups


def _validating(alike: dict[bytes, list[int]], scan: Scan, fraction: float) -> frozenset[int]:
    weights = {digest: len(group) * scan.sizes[group[0]] for digest, group in alike.items()}
    target = fraction * sum(weights.values())
    chosen: list[bytes] = []
    held = 0
    for digest in sorted(weights):
        if held >= target or len(chosen) == len(alike) - 1:
            break
        if held + weights[digest] <= 2 * target:
            chosen.append(digest)
            held += weights[digest]
    chosen = chosen or [min(weights, key=lambda digest: (weights[digest], digest))]
    return frozenset(itertools.chain.from_iterable(alike[digest] for digest in chosen))


def _cut(document: Document, length: int) -> tuple[Document, Document]:
    """Cut after `length` characters. The head must be read before the tail."""
    rest: list[str] = []

    def head() -> Iterator[str]:
        left = length
        for piece in document.pieces:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                rest.append(piece[len(piece) + left :])
                return

    def tail() -> Iterator[str]:
        yield from rest
        yield from document.pieces

    return Document(document.name, head()), Document(document.name, (t for t in tail() if t))
