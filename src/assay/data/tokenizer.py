"""What every tokenizer can do; the two that need no training; text from a stream of tokens.

A tokenizer is its saved file: `sha256` is the hash of that file's bytes, and loading it gives the
same tokenizer. Nothing in it is executed.
"""

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from assay.disk import MARKS, parse_json, read_bytes
from assay.errors import DataError
from assay.schema import shown

Ids = NDArray[np.uint32]
END_OF_TEXT = "<|endoftext|>"
MOST_BYTES = 1 << 28  # of a tokenizer's file; the largest in use are a tenth of that
_MOST_CHARS = 1 << 24  # of chars.json: each of the 1.1 million code points takes at most 12


@dataclass(frozen=True, slots=True)
class TrainingText:
    """What a tokenizer may be made from.

    Attributes:
        pieces: The training split's text, cut where no token could cross.
        alphabet: The corpus's characters, validation included; empty unless asked for.
        n_documents: Of the whole corpus.
    """

    pieces: Iterator[str]
    alphabet: str
    n_documents: int


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        vocab_size: V; ids are 0 to V - 1.
        eot_id: The token that ends a document, or None.
        lossless: Whether decode(encode(text)) is always the text. Where it is not (a foreign
            tokenizer that normalises), bits per byte must divide by the bytes of the true text,
            which prepared files record; the bytes of the tokens are then not the text's.
        cuts: Where a text may be cut without changing its tokens: anywhere, before the white
            space after a word, or nowhere.
    """

    vocab_size: int
    eot_id: int | None
    lossless: bool
    cuts: Literal["anywhere", "space", "nowhere"]

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text; in parallel where that pays.

        Raises:
            DataError: For a character the tokenizer cannot encode.
        """

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for a special token.

        Raises:
            DataError: For an id outside the vocabulary.
        """

    @abstractmethod
    def saved(self) -> tuple[str, bytes]:
        """Return the name and content of the one file that is this tokenizer."""

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`; the spelling of a special token is text like any other."""
        return self.encode_batch([text])[0]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the tokens' text; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes(int(token)) for token in tokens).decode(errors="replace")

    def token_byte_lengths(self) -> NDArray[np.int64]:
        """Return the number of bytes of every token, (V,)."""
        return np.array([len(self.token_bytes(i)) for i in range(self.vocab_size)], np.int64)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the saved file."""
        return hashlib.sha256(self.saved()[1]).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write the file into `folder` and return its path."""
        name, content = self.saved()
        (folder / name).write_bytes(content)
        return folder / name


@final
class CharTokenizer(Tokenizer):
    """One token per character, ids in the order of code points."""

    FILE = "chars.json"

    def __init__(self, alphabet: str, *, end_of_text: bool) -> None:
        self.alphabet = "".join(sorted(set(alphabet)))
        self.eot_id = len(self.alphabet) if end_of_text else None
        self.vocab_size = len(self.alphabet) + end_of_text
        self.lossless, self.cuts = True, "anywhere"
        points = _code_points(self.alphabet)
        self._ids = np.full(int(points.max(initial=0)) + 2, len(points), np.uint32)
        self._ids[points] = np.arange(len(points), dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Look every character up."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        points = np.minimum(_code_points(text), len(self._ids) - 1)  # the last entry: unknown
        ids: Ids = self._ids[points]
        unknown = np.flatnonzero(ids == len(self.alphabet))
        if unknown.size:
            place = int(unknown[0])
            raise DataError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}) at place {place} of the "
                f"text; expected one of the {len(self.alphabet)} the tokenizer was built from. "
                "Leave it out, or train with tokenizer byte or bpe."
            )
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the character in UTF-8."""
        check_id(token, self.vocab_size)
        return b"" if token == self.eot_id else self.alphabet[token].encode()

    def saved(self) -> tuple[str, bytes]:
        """Return the characters as JSON."""
        fields = {"kind": "char", "alphabet": self.alphabet, "end_of_text": self.eot_id is not None}
        return self.FILE, json.dumps(fields).encode()


@final
class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8: ids 0 to 255, and 256 for the end of text."""

    FILE = "bytes.json"

    def __init__(self) -> None:
        self.vocab_size, self.eot_id = 257, 256
        self.lossless, self.cuts = True, "anywhere"

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the bytes themselves."""
        return [np.frombuffer(utf8(text), np.uint8).astype(np.uint32) for text in texts]

    def token_bytes(self, token: int) -> bytes:
        """Return the one byte."""
        check_id(token, self.vocab_size)
        return b"" if token == self.eot_id else bytes([token])

    def saved(self) -> tuple[str, bytes]:
        """Return the kind; there is nothing else to keep."""
        return self.FILE, json.dumps({"kind": "byte"}).encode()


@final
class TextStream:
    """Text as tokens arrive: a character split over several tokens comes out whole, and once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that `token` completes; often none in the middle of a character."""
        return self._decoder.decode(self._tokenizer.token_bytes(int(token)))

    def flush(self) -> str:
        """Return U+FFFD for a character that was never completed, and begin anew."""
        return self._decoder.decode(b"", final=True)


def load_tokenizer(folder: Path, *, sha256: str | None = None) -> Tokenizer:
    """Read the tokenizer that `save` wrote into `folder`, or a foreign `tokenizer.json`.

    Args:
        folder: Holds one tokenizer.
        sha256: Of its file; one of another hash is refused before it is read as a tokenizer.

    Raises:
        DataError: For a folder without a tokenizer, a file that is not one, or another hash.
    """
    from assay.data.subword import FILE, read_tokenizer  # a subword tokenizer is a Tokenizer

    names = (ByteTokenizer.FILE, CharTokenizer.FILE, FILE)
    path = next((folder / name for name in names if (folder / name).is_file()), folder / FILE)
    if sha256 is not None and path.is_file():
        _check_hash(path, sha256, "not the one this model was trained with")
    if path.name == FILE:
        return read_tokenizer(str(folder))
    tokenizer = ByteTokenizer() if path.name == ByteTokenizer.FILE else _read_chars(path)
    _check_hash(path, tokenizer.sha256, "not as assay writes it")
    return tokenizer


def _check_hash(path: Path, expected: str, reason: str) -> None:
    found = hashlib.sha256(read_bounded(path)).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: SHA-256 {found[:16]}... found, expected {expected[:16]}...: the tokenizer is "
            f"{reason}. Put it back from a copy."
        )


def _read_chars(path: Path) -> CharTokenizer:
    try:
        fields = parse_json(read_bounded(path, _MOST_CHARS), marks=MARKS)
        alphabet, end_of_text = fields["alphabet"], fields["end_of_text"]
        if not (isinstance(alphabet, str) and alphabet and isinstance(end_of_text, bool)):
            raise ValueError("alphabet or end_of_text of another type")
        alphabet.encode()
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a character tokenizer ({shown(error)}); expected the file that assay "
            "wrote. Copy it again."
        ) from None
    return CharTokenizer(alphabet, end_of_text=end_of_text)


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a tokenizer's file of at most `most` bytes.

    Raises:
        DataError: When it cannot be read, or is too large to be a tokenizer.
    """
    try:
        return read_bytes(path, most)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a readable tokenizer.") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}, to be a tokenizer. Check that it is one.") from None


def check_id(token: int, vocab_size: int) -> None:
    """Raise DataError unless `token` is an id of a vocabulary of that size."""
    if not 0 <= token < vocab_size:
        raise DataError(
            f"token id {token} found; expected 0 to {vocab_size - 1}. The model's vocabulary and "
            "the tokenizer's are not the same."
        )


def utf8(text: str) -> bytes:
    """Encode `text`.

    Raises:
        DataError: For half a surrogate pair, which UTF-8 cannot hold.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a surrogate pair (U+{ord(text[error.start]):04X}) at place {error.start} of "
            "the text; expected text that UTF-8 can hold. Leave it out."
        ) from None


def _code_points(text: str) -> Ids:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
