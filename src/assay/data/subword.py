"""Tokenizers of the `tokenizers` library: byte-pair encoding trained here, or anybody's file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from assay.data.bytelevel import BYTE_OF, token_to_bytes
from assay.data.tokenizer import END_OF_TEXT, Ids, Tokenizer, check_id, read_bounded, utf8
from assay.disk import parse_json
from assay.errors import DataError

FILE = "tokenizer.json"
# Under these names do known tokenizers end a document; the first one present is taken.
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
_MOST_UNUSED = 1 << 16  # ids that no token has, where there are few tokens
_MOST_REASON = 200  # characters of what the library says
_GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


@final
class SubwordTokenizer(Tokenizer):
    """Any `tokenizer.json`, without its template: nothing is added before or after a text.

    Truncation, padding and BPE dropout that the file asks for are turned off. A token's bytes are
    exact for byte-level tokenizers; for others they are what the token adds to a decoded text, so
    that one which marks the beginnings of words gives a space before the first.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._inner = tokenizers.Tokenizer.from_str(content.decode())
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True
        spec = parse_json(content, marks=len(content))
        if spec["model"].get("dropout"):
            self._inner.model.dropout = None
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        self.vocab_size = _checked_size(vocabulary)
        special = {added["content"] for added in spec["added_tokens"] if added["special"]}
        self.eot_id = next((vocabulary[end] for end in _ENDS if end in special), None)
        self.lossless = _is_lossless(spec, vocabulary)
        self.cuts: Literal["space", "nowhere"] = "space" if _is_gpt2_style(spec) else "nowhere"
        self._bytes = self._bytes_of_all(spec, vocabulary)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Encode in parallel, one text per thread."""
        for text in texts:
            utf8(text)
        with _library("the tokenizer", "one that can encode every text"):
            encodings = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for a special token or an unused id."""
        check_id(token, self.vocab_size)
        return self._bytes[token]

    def saved(self) -> tuple[str, bytes]:
        """Return the file as it was read."""
        return FILE, self._content

    def _bytes_of_all(self, spec: dict[str, Any], vocabulary: Mapping[str, int]) -> list[bytes]:
        table = [b""] * self.vocab_size
        byte_level = (spec["decoder"] or {}).get("type") == "ByteLevel"
        anchor = next((i for i in vocabulary.values() if self._inner.decode([i]).strip()), None)
        for token, i in vocabulary.items():
            plain = byte_level and all(char in BYTE_OF for char in token)
            table[i] = token_to_bytes(token) if plain else self._added_bytes(token, i, anchor)
        for added in spec["added_tokens"]:
            table[added["id"]] = b"" if added["special"] else added["content"].encode()
        return table

    def _added_bytes(self, token: str, i: int, anchor: int | None) -> bytes:
        """Return what token `i` adds to a text; the bytes of a byte-fallback token."""
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        if anchor is None:
            return b""
        before, after = self._inner.decode([anchor]), self._inner.decode([anchor, i])
        follows = after.startswith(before)
        return (after.removeprefix(before) if follows else self._inner.decode([i])).encode()


def train_bpe(pieces: Iterator[str], *, vocab_size: int) -> SubwordTokenizer:
    """Train byte-level BPE as GPT-2's: its words, no normaliser, no space put in front.

    Fewer than `vocab_size` tokens come out when no pair is left that occurs twice.
    """
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once is a quotation, not a word
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(pieces, trainer)
    return SubwordTokenizer(inner.to_str().encode())


def read_tokenizer(path: str) -> SubwordTokenizer:
    """Read a `tokenizer.json`, a folder that holds one, or a folder with GPT-2's two files.

    Raises:
        DataError: When there is none, or when the `tokenizers` library cannot read it.
    """
    place = Path(path)
    if place.is_file():
        return _from_json(place)
    if (place / FILE).is_file():
        return _from_json(place / FILE)
    for vocabulary, merges in _GPT2_FILES:
        if (place / vocabulary).is_file() and (place / merges).is_file():
            return _from_gpt2(place / vocabulary, place / merges)
    raise DataError(
        f"data.tokenizer.path: no tokenizer at {path!r}; expected a {FILE}, or a folder with one "
        "or with vocab.json and merges.txt. Check the path."
    )


def _from_json(path: Path) -> SubwordTokenizer:
    content = read_bounded(path)
    with _library(path, "its JSON format"):
        return SubwordTokenizer(content)


def _from_gpt2(vocabulary: Path, merges: Path) -> SubwordTokenizer:
    """Build the tokenizer OpenAI published as two files."""
    for path in (vocabulary, merges):
        read_bounded(path)
    with _library(vocabulary, "GPT-2's two files"):
        inner = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        if inner.token_to_id(END_OF_TEXT) is not None:
            inner.add_special_tokens([END_OF_TEXT])
        return SubwordTokenizer(inner.to_str().encode())


@contextmanager
def _library(place: object, expected: str) -> Iterator[None]:
    """Turn what the tokenizers library raises into a sentence: bare Exception, and panics."""
    try:
        yield
    except DataError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).partition("\n")[0][:_MOST_REASON]
        raise DataError(
            f"{place}: not a tokenizer the library can use ({reason}); expected {expected}. Copy "
            "or export it again."
        ) from None


def _checked_size(vocabulary: Mapping[str, int]) -> int:
    """Return one more than the largest id, which sizes tables: ids may not lie far apart."""
    size = max(vocabulary.values(), default=-1) + 1
    if size > (most := 2 * len(vocabulary) + _MOST_UNUSED):
        raise ValueError(f"id {size - 1} found, expected at most {most - 1} for its tokens")
    return size


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        return list(pre_tokenizer["pretokenizers"])
    return [pre_tokenizer] if pre_tokenizer else []


def _is_lossless(spec: dict[str, Any], vocabulary: Mapping[str, int]) -> bool:
    """Byte-level at both ends, all 256 bytes there, and nothing that drops or changes text."""
    *before, last = _steps(spec["pre_tokenizer"]) or [{"type": "none"}]
    keeps = all(
        step["type"] in {"Split", "Digits"} and step.get("behavior") != "Removed" for step in before
    )
    added = [token for token in spec["added_tokens"] if not token["special"]]
    return (
        spec["normalizer"] is None
        and keeps
        and last["type"] == "ByteLevel"
        and not last["add_prefix_space"]
        and (spec["decoder"] or {}).get("type") == "ByteLevel"
        and BYTE_OF.keys() <= vocabulary.keys()
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    )


def _is_gpt2_style(spec: dict[str, Any]) -> bool:
    """Whether words are GPT-2's own, so that `cut_at_spaces` changes no token."""
    steps = _steps(spec["pre_tokenizer"])
    return (
        spec["normalizer"] is None
        and len(steps) == 1
        and steps[0]["type"] == "ByteLevel"
        and steps[0].get("use_regex", True)
        and not steps[0]["add_prefix_space"]
        and all(token["special"] for token in spec["added_tokens"])
    )
