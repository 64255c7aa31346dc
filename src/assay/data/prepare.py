"""From a config to token files that are mapped into memory, by way of a cache."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from assay.data.cache import cache_folder, file_sha256, find_fault, open_entry
from assay.data.config import DataConfig, FileTokenizerConfig
from assay.data.corpus import Corpus, Progress
from assay.data.encode import token_dtype, training_text, write_tokens
from assay.data.split import Split, decide_split
from assay.data.subword import read_tokenizer
from assay.data.tokenizer import Tokenizer, load_tokenizer
from assay.disk import read_json, size_of
from assay.errors import DataError
from assay.schema import Config, decode

FORMAT = 1  # of the cache; raise it when the same key would hold other bytes
_META, _MOST_BYTES = "meta.json", 1 << 12
_MOST_NAMED = 1000  # of the files passed over
_ENTRY = re.compile(r"[0-9a-f]{64}")


class _SideCounts(Config):
    documents: NonNegativeInt
    bytes: NonNegativeInt
    tokens: NonNegativeInt


class _Counts(Config):
    """What `meta.json` holds, as `write_tokens` returned it."""

    train: _SideCounts
    val: _SideCounts


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The tokens of one side of the split.

    Attributes:
        path: The file: little-endian ids and nothing else.
        ids: Its tokens, (n,), uint16 or uint32, mapped and read-only.
        sha256: Of the file, checked when it was opened.
        n_bytes: Bytes of UTF-8 of the true text; what bits per byte divides by.
        document_starts: The index into `ids` of each document's first token, int64.
    """

    path: Path
    ids: NDArray[np.unsignedinteger] = field(repr=False)
    sha256: str
    n_bytes: int
    document_starts: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Text ready to train on.

    Attributes:
        sha256: Of the corpus's hash, the split and the tokenizer's hash; a run records it.
        summary: Counts, hashes and choices, ready for JSON.
    """

    train: TokenFile
    val: TokenFile
    tokenizer: Tokenizer
    sha256: str
    summary: dict[str, Any]


def prepare(
    config: DataConfig, cache: Path | None = None, progress: Progress | None = None
) -> Dataset:
    """Read, split and encode the text that `config` names, or find that done in the cache.

    Args:
        config: The text, the split, the tokenizer.
        cache: Else ASSAY_CACHE, else the platform's folder for caches.
        progress: Called with (stage, bytes done, bytes in all); the stages are `read` (its total
            is 0: not known yet), `train tokenizer` (nine tenths of the total, say: it sees the
            training side only) and `encode`.

    Raises:
        DataError: For text that cannot be read or split, and a cache that cannot be written.
    """
    corpus = Corpus.open(config, progress)
    split = decide_split(corpus, config)
    entry = cache_folder(cache) / _key(corpus, split, config)

    def build(folder: Path) -> None:
        tokenizer = config.tokenizer.build(training_text(corpus, split, progress))
        tokenizer.save(folder)
        counts = write_tokens(corpus, split, tokenizer, folder, progress)
        (folder / _META).write_text(json.dumps(counts))

    how = open_entry(entry, build)
    return _load(entry, how, corpus, split, config)


def reopen(summary: Mapping[str, Any], cache: Path | None = None) -> Dataset | None:
    """Return what `prepare` left in the cache when it returned this summary; the text is not read.

    So a run can go on whose text came from standard input, or was moved since. None where the cache
    no longer holds it whole.
    """
    name = str(summary.get("prepared", ""))
    if not _ENTRY.fullmatch(name) or find_fault(entry := cache_folder(cache) / name) is not None:
        return None
    tokenizer = load_tokenizer(entry)
    counts = _read_counts(entry)
    train, val = (_token_file(entry, side, counts[side], tokenizer) for side in ("train", "val"))
    for side, found in (("train", train), ("val", val)):
        if summary[side].get("sha256", found.sha256) != found.sha256:
            return None
    return Dataset(train, val, tokenizer, summary["data_sha256"], dict(summary))


def _load(entry: Path, how: str, corpus: Corpus, split: Split, config: DataConfig) -> Dataset:
    tokenizer = load_tokenizer(entry)
    counts = _read_counts(entry)
    train, val = (_token_file(entry, side, counts[side], tokenizer) for side in ("train", "val"))
    sha256s = {"train": train.sha256, "val": val.sha256}
    data = {
        "corpus_sha256": corpus.sha256,
        "split": split.kind,
        "val_fraction": config.val_fraction,
        "tokenizer_sha256": tokenizer.sha256,
    }
    sha256 = _hash(data)
    summary = data | {
        "data_sha256": sha256,
        "text": list(config.text),
        "skipped": list(corpus.skipped[:_MOST_NAMED]),
        "n_skipped": len(corpus.skipped),
        "documents": corpus.n_documents,
        "bytes": corpus.n_bytes,
        "tokenizer": config.tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "lossless": tokenizer.lossless,
        "cache": how,
        "prepared": entry.name,
        **{side: _described(counts[side], tokenizer, sha256s[side]) for side in ("train", "val")},
    }
    return Dataset(train, val, tokenizer, sha256, summary)


def _read_counts(entry: Path) -> dict[str, dict[str, int]]:
    """Return the counts of each side that `write_tokens` made.

    Raises:
        DataError: If there are none that it could have made.
    """
    try:
        return decode(_Counts, read_json(entry / _META, _MOST_BYTES)).model_dump()
    except (OSError, ValueError):
        raise _foreign(entry / _META, "the counts of both sides") from None


def _token_file(entry: Path, side: str, counts: dict[str, int], tokenizer: Tokenizer) -> TokenFile:
    """Map one side's tokens.

    Raises:
        DataError: If they are not of the tokenizer, whose ids models and kernels look up unasked.
    """
    path, dtype = entry / f"{side}.bin", token_dtype(tokenizer.vocab_size)
    n_bytes, starts_bytes = size_of(path), size_of(entry / f"{side}.starts")
    if n_bytes != counts["tokens"] * dtype.itemsize or starts_bytes != 8 * counts["documents"]:
        raise _foreign(path, f"{counts['tokens']} tokens of {counts['documents']} documents")
    ids = np.memmap(path, dtype, "r") if n_bytes else np.empty(0, dtype)
    if n_bytes and int(ids.max()) >= tokenizer.vocab_size:
        raise _foreign(path, f"ids below {tokenizer.vocab_size}")
    starts = np.fromfile(entry / f"{side}.starts", "<i8")
    if (np.diff(starts) < 0).any() or (
        len(starts) and not 0 <= starts[0] <= starts[-1] <= len(ids)
    ):
        raise _foreign(entry / f"{side}.starts", "places of tokens, in order")
    return TokenFile(path, ids, file_sha256(entry, path.name), counts["bytes"], starts)


def _foreign(path: Path, expected: str) -> DataError:
    return DataError(
        f"{path}: another content found than assay writes; expected {expected}. Remove the folder "
        f"{path.parent}, and the text is prepared anew."
    )


def _described(counts: dict[str, int], tokenizer: Tokenizer, sha256: str) -> dict[str, Any]:
    """Add the tokens' hash and bytes per token, the ends of documents not counted as tokens."""
    ends = counts["documents"] if tokenizer.eot_id is not None else 0
    per_token = counts["bytes"] / max(1, counts["tokens"] - ends)
    return counts | {"bytes_per_token": per_token, "sha256": sha256}


def _key(corpus: Corpus, split: Split, config: DataConfig) -> str:
    """Name the cache's entry by all that decides its bytes."""
    tokenizer: dict[str, Any] = config.tokenizer.model_dump()
    if isinstance(config.tokenizer, FileTokenizerConfig):
        tokenizer = {"sha256": read_tokenizer(config.tokenizer.path).sha256}
    return _hash(
        {
            "format": FORMAT,
            "corpus": corpus.sha256,
            "split": [split.kind, config.val_fraction],
            "tokenizer": tokenizer,
            "tokenizers": version("tokenizers"),
        }
    )


def _hash(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
