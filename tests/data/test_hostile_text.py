"""Texts and tokenizers made to harm whoever reads them."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import warnings
from array import array

import pytest
import zstandard

from assay.data.config import DataConfig
from assay.data.corpus import Corpus
from assay.data.prepare import prepare, reopen
from assay.data.readers import read_pieces
from assay.data.sources import Origin
from assay.data.subword import read_tokenizer, train_bpe
from assay.data.tokenizer import ByteTokenizer, CharTokenizer, load_tokenizer
from assay.errors import ConfigError, DataError
from assay.schema import decode

BOMBS = {
    ".gz": lambda data: gzip.compress(data, 9),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
FREE = 64 << 20


@pytest.mark.parametrize("suffix", sorted(BOMBS))
def test_a_file_that_unpacks_without_end_is_refused_soon_after_64_mib(tmp_path, suffix):
    path = tmp_path / f"bomb.txt{suffix}"
    path.write_bytes(BOMBS[suffix](b"a" * (FREE + (48 << 20))))
    sizes = array("q")
    pieces = (len(piece) for _, piece in read_pieces(Origin(str(path), str(path), "text"), None))
    with pytest.raises(DataError, match=r"over 67108864 bytes come out of \d+; expected text"):
        sizes.extend(pieces)
    assert 0 < sum(sizes) <= FREE


def test_a_text_of_64_mib_may_pack_as_tightly_as_it_likes(tmp_path):
    path = tmp_path / "dull.txt.zst"
    path.write_bytes(zstandard.compress(b"a" * FREE))
    pieces = read_pieces(Origin(str(path), str(path), "text"), None)
    assert sum(len(piece) for _, piece in pieces) == FREE


def test_one_read_of_a_zstandard_bomb_gives_under_64_mib(tmp_path):
    """It spells 128 KiB in three bytes or so; a block read is not refused before it is whole."""
    path = tmp_path / "bomb.txt.zst"
    path.write_bytes(zstandard.compress(b"a" * FREE))
    largest = max(len(p) for _, p in read_pieces(Origin(str(path), str(path), "text"), None))
    assert largest < FREE


@pytest.mark.parametrize(
    "line", ['{"text": ' + "[" * 100_000, '{"text": ' + "9" * 5000 + "}", '{"text": 1e9}', "[]"]
)
def test_a_line_of_json_made_to_hurt_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        Corpus.open(DataConfig(text=(str(tmp_path / "a.jsonl"),)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "(" * 5000, "a{99999999999}", "(?P<x>", "[" * 3000])
def test_a_pattern_that_does_not_compile_is_one_short_sentence(pattern):
    with pytest.raises(ConfigError, match=r"document_start: .* expected a regular") as caught:
        decode(DataConfig, {"document_start": pattern})
    assert len(str(caught.value)) < 1000


def test_a_pattern_that_python_wonders_about_brings_no_warning():
    with warnings.catch_warnings(record=True) as told:
        assert DataConfig(document_start="[[a]").document_start == "[[a]"
    assert not told


@pytest.fixture
def subword(tmp_path):
    train_bpe(iter(["the cat sat on the mat"] * 9), vocab_size=262).save(tmp_path)
    return tmp_path / "tokenizer.json"


def harmed(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return str(path)


def test_ids_that_lie_far_apart_are_refused_before_tables_of_their_size_are_made(subword):
    path = harmed(subword, lambda tree: tree["model"]["vocab"].update(far=2**32 - 1))
    with pytest.raises(DataError, match="id 4294967295 found, expected at most"):
        read_tokenizer(path)


def test_a_token_twice_in_the_vocabulary_is_refused(subword):
    subword.write_text(subword.read_text().replace('"vocab": {', '"vocab": {"a": 1, "a": 2, ', 1))
    if '"a": 2' not in subword.read_text():
        subword.write_text(subword.read_text().replace('"vocab":{', '"vocab":{"a":1,"a":2,', 1))
    with pytest.raises(DataError, match="found twice in one object"):
        read_tokenizer(str(subword))


def test_a_panic_of_the_library_is_one_sentence(subword):
    """Merges of tokens shorter than the prefix they claim make it index before the start."""
    path = harmed(subword, lambda tree: tree["model"].update(continuing_subword_prefix="x" * 400))
    with pytest.raises(DataError, match="not a tokenizer the library can use"):
        read_tokenizer(path)


def test_a_tokenizer_that_cannot_encode_says_so(tmp_path):
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}
    fields = ["normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"]
    tree = dict.fromkeys(fields) | {"version": "1.0", "added_tokens": [], "model": words}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    tokenizer = read_tokenizer(str(tmp_path))
    with pytest.raises(DataError, match="expected one that can encode every text"):
        tokenizer.encode("b")


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer("abc", end_of_text=True)])
def test_a_tokenizers_file_is_the_one_assay_wrote_to_the_byte(tmp_path, tokenizer):
    path = tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256
    path.write_bytes(path.read_bytes().replace(b": ", b":  ", 1))
    with pytest.raises(DataError, match=r"SHA-256 \w{16}\.\.\. found, expected \w{16}\.\.\."):
        load_tokenizer(tmp_path)


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 50)
    config = decode(DataConfig, {"text": str(tmp_path / "a.txt"), "tokenizer": "char"})
    return prepare(config, tmp_path / "cache"), tmp_path / "cache"


def test_the_summary_names_the_tokens_by_their_hash(prepared):
    dataset, _ = prepared
    assert dataset.summary["train"]["sha256"] == dataset.train.sha256
    assert dataset.summary["val"]["sha256"] == dataset.val.sha256


def test_other_tokens_under_seals_that_fit_are_not_taken_for_those_of_a_run(prepared):
    dataset, cache = prepared
    assert reopen(dataset.summary, cache) is not None
    other = dataset.summary | {"train": dataset.summary["train"] | {"sha256": "0" * 64}}
    assert reopen(other, cache) is None


@pytest.mark.parametrize("change", ["more", "none"])
def test_a_cache_whose_files_are_not_those_its_seal_names_is_made_again(prepared, change):
    dataset, cache = prepared
    entry = dataset.train.path.parent
    if change == "more":
        (entry / "more.bin").write_bytes(b"")
    else:
        (entry / "manifest.json").write_text('{"files": {}}')
    assert reopen(dataset.summary, cache) is None


def test_only_the_first_thousand_files_passed_over_are_named(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "a.txt").write_text("the cat sat on the mat. " * 50)
    for number in range(1005):
        os.close(os.open(folder / f"{number}.png", os.O_CREAT))
    config = decode(DataConfig, {"text": str(folder), "tokenizer": "char"})
    summary = prepare(config, tmp_path / "cache").summary
    assert (len(summary["skipped"]), summary["n_skipped"]) == (1000, 1005)
    shutil.rmtree(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{}"])
def test_a_file_of_another_hash_is_refused_with_both_before_it_is_read(tmp_path, content):
    tokenizer = CharTokenizer("abc", end_of_text=True)
    path = tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path, sha256=tokenizer.sha256).sha256 == tokenizer.sha256
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()[:16]
    with pytest.raises(DataError, match=f"{found}.* found, expected {tokenizer.sha256[:16]}"):
        load_tokenizer(tmp_path, sha256=tokenizer.sha256)
