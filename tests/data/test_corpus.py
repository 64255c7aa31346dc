import bz2
import gc
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import time
import types
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import assay.data.corpus as corpus_module
from assay.data.config import CharTokenizerConfig, DataConfig
from assay.data.corpus import BUNDLED_SHA256, Corpus
from assay.data.sources import BUNDLED
from assay.errors import DataError

COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\ufeff\u2028"), min_size=1)


def opened(*text, **fields):
    return Corpus.open(DataConfig(text=tuple(map(str, text)), **fields))


def texts(corpus):
    return [document.text() for document in corpus.documents()]


@given(text=TEXT, suffix=st.sampled_from(sorted(COMPRESSORS)))
def test_text_is_read_exactly_under_every_compression(tmp_path_factory, text, suffix):
    path = tmp_path_factory.mktemp("t") / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](text.encode()))
    corpus = opened(path)
    assert texts(corpus) == [text]
    assert (corpus.n_bytes, corpus.n_chars) == (len(text.encode()), len(text))


def test_a_text_is_scanned_once_as_long_as_it_is_as_it_was(tmp_path, monkeypatch):
    """But one that was changed a moment ago may change again and show the same times."""
    read, now = [], time.time()
    scan = corpus_module._scan
    monkeypatch.setattr(corpus_module, "_scan", lambda *told: read.append(told) or scan(*told))
    path = tmp_path / "a.txt"

    def sha256_after(seconds):
        monkeypatch.setattr(corpus_module.time, "time", lambda: now + seconds)
        return opened(path).sha256

    path.write_text("one\ntwo")
    first = sha256_after(1)
    assert (sha256_after(1), len(read)) == (first, 2)
    assert (sha256_after(9), sha256_after(9), len(read)) == (first, first, 3)
    assert opened(path, tokenizer=CharTokenizerConfig()).alphabet == "\nenotw"
    assert opened(path, document_start="two").n_documents == 2
    assert len(read) == 5
    path.write_text("two\none")
    os.utime(path, (now - 60, now - 60))
    second = sha256_after(9)
    assert (second != first, len(read)) == (True, 6)
    assert (sha256_after(9), len(read)) == (second, 6)
    path.unlink()
    with pytest.raises(DataError):
        opened(path)


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS.keys() - {""}))
def test_a_compressed_file_of_several_streams_is_read_to_its_end(tmp_path, suffix):
    compress = COMPRESSORS[suffix]
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(b"one ") + compress(b"two"))
    assert texts(opened(path)) == ["one two"]


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS.keys() - {""}))
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_cut_off_file_is_told_from_a_whole_one(tmp_path, suffix, keep):
    whole = COMPRESSORS[suffix](os.urandom(3000).hex().encode())
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(DataError, match=r"a\.txt.*: cut off or corrupt .* expected a whole"):
        opened(path)


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS.keys() - {""}))
def test_a_file_that_is_not_what_its_suffix_says_is_corrupt(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(b"this is plain text and no archive at all")
    with pytest.raises(DataError, match="cut off or corrupt"):
        opened(path)


@given(rows=st.lists(TEXT, min_size=1, max_size=5), ascii_only=st.booleans())
def test_every_line_of_json_is_one_document(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.mktemp("t") / "a.jsonl"
    lines = [json.dumps({"text": row, "n": 1}, ensure_ascii=ascii_only) for row in rows]
    path.write_text("\n\n".join(lines), newline="", encoding="utf-8")
    assert texts(opened(path)) == rows


def test_a_suffix_after_a_colon_names_the_field(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "t", "body": "b"}'))
    assert texts(opened(f"{path}:body", path)) == ["b", "t"]
    assert texts(opened(path, json_field="body")) == ["b"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"body": "x", "id": 1}', r"a\.jsonl:2: no field 'text'; fields found: 'body', 'id'"),
        (b'{"text": 3}', r"a\.jsonl:2: 'text' is int; expected a string"),
        (b'{"text": "x"', r"a\.jsonl:2: not JSON"),
        (b'["x"]', r"a\.jsonl:2: list found; expected an object"),
        (b'{"text": "\\ud800"}', r"a\.jsonl:2: half a surrogate pair \(\\ud800\)"),
    ],
)
def test_a_bad_line_of_json_is_named_with_its_number(tmp_path, line, complaint):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=complaint):
        opened(tmp_path / "a.jsonl")


def test_a_matching_line_begins_a_document_and_no_character_is_lost(tmp_path):
    text = "before\r\n= a =\nx = y =\n= b =\n\n= c ="
    (tmp_path / "a.txt").write_bytes(text.encode())
    found = texts(opened(tmp_path / "a.txt", document_start="= . ="))
    assert found == ["before\r\n", "= a =\nx = y =\n", "= b =\n\n", "= c ="]


@given(
    lines=st.lists(st.text("ab#\r ", max_size=200_000), max_size=6),
    at_end=st.booleans(),
)
def test_documents_cut_at_lines_join_to_the_file(tmp_path_factory, lines, at_end):
    text = "\n".join([*lines, "x"]) + "\n" * at_end
    path = tmp_path_factory.mktemp("t") / "a.txt"
    path.write_bytes(text.encode())
    found = texts(opened(path, document_start="#"))
    assert "".join(found) == text
    inner = sum(line.startswith("#") for line in text.split("\n"))
    assert len(found) == inner + (not text.startswith("#"))


def test_a_long_document_comes_in_pieces_and_a_character_on_their_border_is_whole(tmp_path):
    text = "x" + "🙂ế" * 200_000
    (tmp_path / "a.txt").write_bytes(text.encode())
    document = next(opened(tmp_path / "a.txt").documents())
    pieces = list(document.pieces)
    assert len(pieces) > 3
    assert "".join(pieces) == text


def test_a_document_left_half_read_does_not_disturb_the_next(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 1_000_000)
    (tmp_path / "b.txt").write_text("second")
    documents = opened(tmp_path).documents()
    next(next(documents).pieces)
    assert next(documents).text() == "second"


def test_a_folder_gives_its_text_files_sorted_and_tells_what_it_left(tmp_path):
    for name in ("b.txt", "a/z.md", "a.py", "x.png", ".hidden.txt", ".git/c.txt", "s.jsonl.xz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lzma.compress(b"") if "xz" in name else name.encode())
    corpus = opened(tmp_path)
    assert texts(corpus) == ["a.py", "a/z.md", "b.txt"]
    assert corpus.skipped == (str(tmp_path / "x.png"),)


def test_a_glob_takes_any_suffix_in_sorted_order(tmp_path):
    for name in ("b.foo", "a.foo", "c.txt"):
        (tmp_path / name).write_text(name)
    assert texts(opened(tmp_path / "*.foo")) == ["a.foo", "b.foo"]


def test_standard_input_is_read_twice_from_a_file_that_goes_with_the_corpus(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("xin chào\r\n".encode())))
    corpus = opened("-")
    assert texts(corpus) == texts(corpus) == ["xin chào\r\n"]
    spool = Path(corpus.origins[0].path)
    assert spool.exists()
    del corpus
    gc.collect()
    assert not spool.exists()


def test_a_missing_file_is_named_with_the_nearest_that_exists(tmp_path):
    (tmp_path / "input.txt").write_text("x")
    with pytest.raises(DataError, match=r"named '.*inptu.txt'\. Did you mean '.*/input.txt'"):
        opened(tmp_path / "inptu.txt")
    with pytest.raises(DataError, match="Did you mean 'shakespeare'"):
        opened("shakespear")


@pytest.mark.parametrize("name", ["*.nothing", "folder", "empty.txt", "books.tar.gz"])
def test_a_place_without_text_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.bin").write_bytes(b"\0")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "books.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"no text|matches no file|an archive of files"):
        opened(tmp_path / name)


@pytest.mark.parametrize("before", [0, 5, 300_000])
def test_a_byte_that_is_not_utf8_is_named_with_file_and_offset(tmp_path, before):
    (tmp_path / "a.txt").write_bytes(b"x" * before + b"\xe9 and more")
    with pytest.raises(DataError, match=f"byte 0xe9 at offset {before} is not UTF-8.*iconv"):
        opened(tmp_path / "a.txt")


def test_a_character_cut_off_at_the_end_of_the_file_is_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("aế".encode()[:-1])
    with pytest.raises(DataError, match="byte 0xe1 at offset 1"):
        opened(tmp_path / "a.txt")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_file_the_system_will_not_read_is_one_sentence():
    with pytest.raises(DataError, match=r"/proc/self/mem: .*; expected a readable file"):
        opened("/proc/self/mem")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_permission_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        opened(tmp_path / "a.txt")


def test_a_hub_name_without_the_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'assay\[hub\]'"):
        opened("hf:wikitext")


def test_the_rows_of_a_hub_data_set_are_documents(monkeypatch):
    rows = {("some/name", "test"): [{"text": "one"}, {"text": "two"}]}
    library = types.ModuleType("datasets")
    library.load_dataset = lambda name, split, streaming: rows[name, split]
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert texts(opened("hf:some/name:test")) == ["one", "two"]


def test_the_hash_is_of_the_documents_hashes_in_order(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    each = b"".join(hashlib.sha256(text).digest() for text in (b"one", b"two"))
    assert opened(tmp_path).sha256 == hashlib.sha256(each).hexdigest()


def test_the_hash_ignores_names_and_sees_boundaries(tmp_path):
    for folder, files in {
        "plain": {"a.txt": "one", "b.txt": "two"},
        "renamed": {"x.md": "one", "y.md": "two"},
        "moved": {"a.txt": "on", "b.txt": "etwo"},
        "joined": {"a.txt": "onetwo"},
    }.items():
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
    hashes = {name: opened(tmp_path / name).sha256 for name in os.listdir(tmp_path)}
    assert hashes["plain"] == hashes["renamed"]
    assert len(set(hashes.values())) == 3


def test_the_alphabet_is_collected_for_characters_only(tmp_path):
    (tmp_path / "a.txt").write_text("beaeb")
    assert opened(tmp_path / "a.txt", tokenizer=CharTokenizerConfig()).alphabet == "abe"
    assert opened(tmp_path / "a.txt").alphabet == ""


def test_the_bundled_corpus_is_the_42_works_byte_for_byte():
    assert hashlib.sha256(BUNDLED.read_bytes()).hexdigest() == BUNDLED_SHA256
    works = texts(opened("shakespeare"))
    assert len(works) == 42
    joined = "\n\n\n".join(works).encode()  # as the copy of reference joins them
    assert len(joined) == 5_057_321
    assert hashlib.sha256(joined).hexdigest().startswith("04decea0dd965df5e6cfc4a538b0c626")


def test_the_bundled_corpus_equals_the_copy_of_reference(real_data):
    with lzma.open(real_data / "shakespeare_okfn" / "shakespeare_okfn.txt.xz") as stream:
        assert "\n\n\n".join(texts(opened("shakespeare"))).encode() == stream.read()
