"""From documents to token files: `train.bin`, `val.bin` and where documents begin in them."""

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from assay.data.bytelevel import cut_at_spaces
from assay.data.corpus import Corpus, Document, Progress
from assay.data.split import Side, Split, sides
from assay.data.tokenizer import Ids, Tokenizer, TrainingText

TEXT_CHARS = 1 << 16  # one task for one thread
BATCH_CHARS = 1 << 20  # bounds memory: the library keeps about 150 bytes per token of a batch


@dataclass(slots=True)
class _Writer:
    """One side's open file, and what has gone into it."""

    stream: BinaryIO
    dtype: np.dtype[np.unsignedinteger]
    n_tokens: int = 0
    n_bytes: int = 0
    starts: "array[int]" = field(default_factory=lambda: array("q"))

    def write(self, ids: Ids) -> None:
        self.stream.write(ids.astype(self.dtype).tobytes())
        self.n_tokens += len(ids)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to encode, and whether a document begins before it or ends after it."""

    side: Side
    text: str
    begins: bool = False
    ends: bool = False


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return two little-endian bytes per token where the ids fit, else four."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def training_text(corpus: Corpus, split: Split, progress: Progress | None) -> TrainingText:
    """Return the training side's text for a tokenizer to learn from, documents kept apart."""
    documents = (document for side, document, _ in sides(corpus, split) if side == "train")
    texts = itertools.chain.from_iterable(
        cut_at_spaces(document.pieces, TEXT_CHARS) for document in documents
    )
    counted = _counted(texts, corpus.n_bytes, progress)
    return TrainingText(counted, corpus.alphabet, corpus.n_documents)


def write_tokens(
    corpus: Corpus, split: Split, tokenizer: Tokenizer, folder: Path, progress: Progress | None
) -> dict[str, dict[str, int]]:
    """Encode both sides into `folder` and return, per side, its documents, bytes and tokens.

    An end of text follows every document that ends on its side, if the tokenizer has one; a
    document that a tail split cut in two does not end on the first.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    end = np.array([] if tokenizer.eot_id is None else [tokenizer.eot_id], np.uint32)
    done = 0
    with (folder / "train.bin").open("wb") as train, (folder / "val.bin").open("wb") as val:
        writers = {"train": _Writer(train, dtype), "val": _Writer(val, dtype)}
        for batch in _batches(_texts(corpus, split, tokenizer)):
            encoded = tokenizer.encode_batch([text.text for text in batch])
            for text, ids in zip(batch, encoded, strict=True):
                _append(writers[text.side], text, ids, end)
            done = sum(writer.n_bytes for writer in writers.values())
            if progress:
                progress("encode", done, corpus.n_bytes)
    for side, writer in writers.items():
        np.array(writer.starts, "<i8").tofile(folder / f"{side}.starts")
    return {side: _counts(writer) for side, writer in writers.items()}


def _append(writer: _Writer, text: _Text, ids: Ids, end: Ids) -> None:
    if text.begins:
        writer.starts.append(writer.n_tokens)
    writer.write(ids)
    writer.n_bytes += len(text.text.encode())
    if text.ends:
        writer.write(end)


def _counts(writer: _Writer) -> dict[str, int]:
    return {
        "documents": len(writer.starts),
        "bytes": writer.n_bytes,
        "tokens": writer.n_tokens,
    }


def _texts(corpus: Corpus, split: Split, tokenizer: Tokenizer) -> Iterator[_Text]:
    for side, document, whole in sides(corpus, split):
        begins = True
        for text in _cut(document, tokenizer):
            yield _Text(side, text, begins=begins)
            begins = False
        if whole:
            yield _Text(side, "", ends=True)


def _cut(document: Document, tokenizer: Tokenizer) -> Iterator[str]:
    """Cut a document only where the tokenizer allows it."""
    if tokenizer.cuts == "anywhere":
        return document.pieces
    if tokenizer.cuts == "space":
        return cut_at_spaces(document.pieces, TEXT_CHARS)
    return iter([document.text()])


def _batches(texts: Iterator[_Text]) -> Iterator[list[_Text]]:
    batch: list[_Text] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text.text) + 1
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _counted(texts: Iterator[str], total: int, progress: Progress | None) -> Iterator[str]:
    done = 0
    for text in texts:
        yield text
        done += len(text.encode())
        if progress:
            progress("train tokenizer", done, total)
