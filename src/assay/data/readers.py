"""From a file to pieces of its text, each piece under the name of its document.

Text is exact: no newline is translated, no byte order mark dropped, nothing normalised. Files are
streamed in pieces, so that memory is bounded by the longest line, not by the file.
"""

import bz2
import codecs
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO, NoReturn, cast

import zstandard

from assay.data import synthetic
from assay.data.sources import COMPRESSIONS, Origin
from assay.errors import DataError

PIECE_BYTES = 1 << 18
_ZSTD_BYTES = 1 << 10  # three of them can spell a block of 128 KiB, so 1 KiB gives 43 MiB at most
_MOST_RATIO, _FREE_BYTES = 250, 1 << 26  # logs reach 1 to 100; under 64 MiB nobody is harmed


def read_pieces(origin: Origin, document_start: str | None) -> Iterator[tuple[str, str]]:
    """Yield (name of the document, piece of its text), documents one after the other.

    Pieces that follow each other under one name are one document. No piece is empty.

    Raises:
        DataError: For a file that cannot be read, decoded or parsed, with file and place.
    """
    if origin.format == "hub":
        pieces = _hub(origin)
    elif origin.format == "task":
        pieces = ((origin.name, line) for line in synthetic.text(cast(synthetic.Task, origin.path)))
    elif origin.format == "jsonl":
        pieces = _json_lines(origin)
    elif document_start is not None:
        pieces = _started(origin, document_start)
    else:
        pieces = ((origin.name, text) for text in _text(origin))
    return ((name, text) for name, text in pieces if text)


def _text(origin: Origin) -> Iterator[str]:
    """Decode the file piece by piece; a character cut by a block's end waits for the next."""
    waiting, place = b"", 0
    for block in _blocks(origin.path):
        data = waiting + block
        text, used = _decode(data, origin, place, last=False)
        waiting, place = data[used:], place + used
        yield text
    yield _decode(waiting, origin, place, last=True)[0]


def _decode(data: bytes, origin: Origin, place: int, *, last: bool) -> tuple[str, int]:
    try:
        return codecs.utf_8_decode(data, "strict", last)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin.name}: byte 0x{data[error.start]:02x} at offset {place + error.start} is "
            "not UTF-8; expected UTF-8 text. Convert it, for example by "
            "`iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None


def _blocks(path: str) -> Iterator[bytes]:
    """Yield the file's bytes, decompressed by its suffix."""
    suffix = "." + path.lower().rpartition(".")[2]
    with _reading(path):
        blocks = _zstd_blocks(path) if suffix == ".zst" else _plain_blocks(path, suffix)
        yield from _bounded(blocks, path) if suffix in COMPRESSIONS else blocks


def _plain_blocks(path: str, suffix: str) -> Iterator[bytes]:
    with _open(path, suffix) as stream:
        yield from iter(partial(stream.read, PIECE_BYTES), b"")


def _bounded(blocks: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Hand blocks on until they are so much larger than the file that it is made to fill a disk."""
    most, done = max(_FREE_BYTES, _MOST_RATIO * os.path.getsize(path)), 0
    for block in blocks:
        done += len(block)
        if done > most:
            raise DataError(
                f"{path}: over {most} bytes come out of {os.path.getsize(path)}; expected text, "
                f"which packs no tighter than 1 to {_MOST_RATIO}. Unpack it first if it is meant."
            )
        yield block


def _open(path: str, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.open(path))
    return cast(BinaryIO, lzma.open(path)) if suffix == ".xz" else open(path, "rb")


def _zstd_blocks(path: str) -> Iterator[bytes]:
    """Decompress frame after frame. The library's own stream takes a cut-off frame for a whole."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    with open(path, "rb") as stream:
        for block in iter(partial(stream.read, _ZSTD_BYTES), b""):
            while block:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                begun = True
                yield frame.decompress(block)
                block = frame.unused_data if frame.eof else b""
    if begun and not frame.eof:
        raise EOFError("the file ends inside a frame")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what a stream raises into a sentence."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        _corrupt(path, error)
    except OSError as error:
        if error.errno is None:  # bz2 says so of bad data
            _corrupt(path, error)
        raise DataError(
            f"{path}: {error.strerror}; expected a readable file. Check it and its permissions."
        ) from None


def _corrupt(path: str, error: Exception) -> NoReturn:
    raise DataError(
        f"{path}: cut off or corrupt ({error}); expected a whole compressed file. "
        "Copy or download it again."
    ) from None


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Join pieces and cut them after each newline, which stays."""
    waiting: list[str] = []
    for piece in pieces:
        *whole, rest = piece.split("\n")
        for line in whole:
            yield "".join((*waiting, line, "\n"))
            waiting = []
        waiting.append(rest)
    if any(waiting):
        yield "".join(waiting)


def _started(origin: Origin, pattern: str) -> Iterator[tuple[str, str]]:
    """Begin a document at every line that `pattern` matches; what stands before is one too."""
    begins = re.compile(pattern).match
    number, waiting, size = 0, list[str](), 0
    for line in _lines(_text(origin)):
        begun = begins(line.removesuffix("\n")) is not None
        if begun or size > PIECE_BYTES:
            yield f"{origin.name}#{number}", "".join(waiting)
            waiting, size = [], 0
        number += begun
        waiting.append(line)
        size += len(line)
    yield f"{origin.name}#{number}", "".join(waiting)


def _json_lines(origin: Origin) -> Iterator[tuple[str, str]]:
    """Read one document per line; blank lines, and the other half's, are passed over."""
    for number, line in enumerate(_lines(_text(origin)), 1):
        if line.strip() and (not origin.half or number % 2 == origin.half % 2):
            place = f"{origin.name}:{number}"
            yield place, _field(_parse(line, place), origin.field, place)


def _parse(line: str, place: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: not JSON ({error}); expected one object a line. Mend or remove the line."
        ) from None


def _field(row: object, field: str, place: str) -> str:
    if not isinstance(row, dict):
        raise DataError(f"{place}: {type(row).__name__} found; expected an object with {field!r}.")
    if field not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise DataError(
            f"{place}: no field {field!r}; fields found: {found}. "
            "Name the one that holds the text by data.json_field or FILE.jsonl:FIELD."
        )
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{place}: {field!r} is {type(text).__name__}; expected a string of text.")
    return _encodable(text, place)


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: half a surrogate pair (\\u{ord(text[error.start]):04x}) at character "
            f"{error.start}; expected text that UTF-8 can hold. Mend or remove the line."
        ) from None
    return text


def _hub(origin: Origin) -> Iterator[tuple[str, str]]:
    """Stream a Hugging Face data set, one document per row."""
    name, _, split = origin.path.partition(":")
    for number, row in enumerate(_hub_rows(name, split or "train"), 1):
        place = f"{origin.name}:{number}"
        yield place, _field(row, origin.field, place)


def _hub_rows(name: str, split: str) -> Iterator[object]:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"data.text: hf:{name} needs the datasets library; `pip install 'assay[hub]'`."
        ) from None
    try:
        yield from datasets.load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"data.text: hf:{name}:{split} cannot be read ({reason}). Check name, split, network."
        ) from None
