"""llama2.c's tokenizer: byte-pair encoding by the scores of pieces, bytes for unknown characters.

Source: github.com/karpathy/llama2.c, `run.c`, `encode` and `decode`; the method is that of
SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226).
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import final

import numpy as np

from assay.data.tokenizer import Ids, Tokenizer, check_id, read_bounded, utf8
from assay.errors import DataError

_BOS, _N_SPECIAL = 1, 3  # unknown, begin of sequence, end of sequence
_N_BYTES = 256
_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")
_LENGTH, _PIECE = struct.Struct("<i"), struct.Struct("<fi")
_MOST_BYTES = 1 << 23  # of the file; Llama 2's has 434 KB
_REMEMBERED_WORDS = 1 << 16


@final
class Llama2cTokenizer(Tokenizer):
    """Pieces with scores: ids 0 to 2 are special, 3 to 258 bytes, the rest text.

    As in llama2.c, encoding begins with the token 1 and puts a space before the text, decoding
    drops the space after a token 1, and the token 1 also ends a document when generating.
    """

    FILE = "tokenizer.bin"

    def __init__(self, content: bytes, *, name: str = FILE) -> None:
        """Read the bytes of a `tokenizer.bin`.

        Raises:
            DataError: Naming the token at which they are not one.
        """
        self._content = content
        self._pieces, self._scores = _parse(content, name)
        self.vocab_size, self.eot_id = len(self._pieces), _BOS
        self.lossless, self.cuts = False, "nowhere"  # its bytes count the space before the text
        text = range(_N_SPECIAL + _N_BYTES, self.vocab_size)
        self._ids = {self._pieces[i]: i for i in reversed(text)}  # the first of equal pieces wins
        across = any(b" " in self._pieces[i][1:] for i in text)
        self._word = re.compile(r".+" if across else r" [^ ]*", re.DOTALL)
        self._encode_word = lru_cache(_REMEMBERED_WORDS)(self._merged)

    @classmethod
    def read(cls, path: Path) -> "Llama2cTokenizer":
        """Read a `tokenizer.bin`.

        Raises:
            DataError: If it cannot be read or is none.
        """
        return cls(read_bounded(path, _MOST_BYTES), name=str(path))

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Merge, again and again, the two neighbours whose union scores highest."""
        return [np.array(list(self._encode(text)), np.uint32) for text in texts]

    def token_bytes(self, token: int) -> bytes:
        """Return the piece; the byte for a byte's token, nothing for a special token."""
        check_id(token, self.vocab_size)
        if token < _N_SPECIAL:
            return b""
        if token < _N_SPECIAL + _N_BYTES:
            return bytes([token - _N_SPECIAL])
        return self._pieces[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the tokens' text without the space that begins it after a token 1."""
        parts, before = [], -1
        for token in map(int, tokens):
            part = self.token_bytes(token)
            parts.append(part.removeprefix(b" ") if before == _BOS else part)
            before = token
        return b"".join(parts).decode(errors="replace")

    def saved(self) -> tuple[str, bytes]:
        """Return the file as it was read."""
        return self.FILE, self._content

    def _encode(self, text: str) -> Iterator[int]:
        """Take words apart where no piece holds a space but in front: merges never cross it."""
        utf8(text)  # refuses half a surrogate pair
        yield _BOS
        for word in self._word.findall(f" {text}" if text else ""):
            yield from self._encode_word(word)

    def _merged(self, word: str) -> list[int]:
        ids = [i for character in word for i in self._character(character.encode())]
        while unions := list(self._unions(ids)):
            _, place, union = max(unions)
            ids[-place : 2 - place] = [union]
        return ids

    def _unions(self, ids: Sequence[int]) -> Iterator[tuple[float, int, int]]:
        """Yield (score, -place, id) of what neighbours can become; the maximum is the next."""
        for place, (left, right) in enumerate(pairwise(ids)):
            union = self._ids.get(self._pieces[left] + self._pieces[right])
            if union is not None:
                yield self._scores[union], -place, union

    def _character(self, encoded: bytes) -> list[int]:
        known = self._ids.get(encoded)
        return [byte + _N_SPECIAL for byte in encoded] if known is None else [known]


def _parse(content: bytes, name: str) -> tuple[list[bytes], list[float]]:
    """Take the file apart: the longest piece's length, then score, length and bytes of each."""
    pieces: list[bytes] = []
    scores: list[float] = []
    place = _LENGTH.size
    while place < len(content):
        if place + _PIECE.size > len(content):
            raise _broken(name, len(pieces), "the file ends")
        score, length = _PIECE.unpack_from(content, place)
        start = place + _PIECE.size
        place = start + length
        if length < 0 or place > len(content) or score != score:
            raise _broken(name, len(pieces), f"length {length} and score {score} are announced")
        pieces.append(content[start:place])
        scores.append(score)
    _check_bytes(pieces, name)
    return pieces, scores


def _check_bytes(pieces: Sequence[bytes], name: str) -> None:
    for byte in range(_N_BYTES):
        i = byte + _N_SPECIAL
        match = _BYTE.fullmatch(pieces[i]) if i < len(pieces) else None
        if match is None or int(match[1], 16) != byte:
            raise _broken(name, i, f"<0x{byte:02X}> is not there")


def _broken(name: str, token: int, problem: str) -> DataError:
    return DataError(
        f"{name}: at token {token} {problem}; expected a llama2.c tokenizer.bin, whose tokens 3 to "
        "258 are the bytes. Fetch it again."
    )
