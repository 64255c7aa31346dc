import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from assay.data.cache import cache_folder, find_fault, open_entry
from assay.data.config import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    DataConfig,
    FileTokenizerConfig,
)
from assay.data.encode import token_dtype
from assay.data.prepare import prepare, reopen
from assay.data.subword import train_bpe
from assay.errors import DataError

DOCUMENTS = [f"Document {number}:\n" + f"line {number} ế\n" * (number + 1) for number in range(20)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / "text" / f"{number:02}.txt").write_text(text, newline="", encoding="utf-8")
    return tmp_path / "text"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def config_of(path, tokenizer=None, **fields):
    tokenizer = tokenizer or BPETokenizerConfig(vocab_size=300)
    return DataConfig(text=(str(path),), tokenizer=tokenizer, **fields)


def split_at_starts(file):
    return np.split(np.asarray(file.ids), file.document_starts[1:])


@pytest.mark.parametrize(
    "tokenizer",
    [CharTokenizerConfig(), ByteTokenizerConfig(), BPETokenizerConfig(vocab_size=300)],
    ids=lambda config: config.kind,
)
def test_every_document_is_there_once_and_ends_in_an_end_of_text(folder, cache, tokenizer):
    data = prepare(config_of(folder, tokenizer), cache)
    parts = split_at_starts(data.train) + split_at_starts(data.val)
    assert all(part[-1] == data.tokenizer.eot_id for part in parts)
    assert all((part == data.tokenizer.eot_id).sum() == 1 for part in parts)
    assert sorted(data.tokenizer.decode(part) for part in parts) == sorted(DOCUMENTS)
    assert data.train.n_bytes + data.val.n_bytes == len("".join(DOCUMENTS).encode())


def test_tokens_of_a_long_text_are_those_of_the_whole_text(tmp_path, cache):
    text = "".join(f"word{n} it's,  \n\t ế{n}\n" for n in range(30_000))
    (tmp_path / "a.txt").write_text(text, newline="", encoding="utf-8")
    data = prepare(config_of(tmp_path / "a.txt"), cache)
    cut = int((1 - 0.1) * len(text))
    assert data.train.ids.tolist() == data.tokenizer.encode(text[:cut]).tolist()
    assert data.val.ids.tolist() == [*data.tokenizer.encode(text[cut:]), data.tokenizer.eot_id]


def test_the_tokenizer_learns_from_the_training_side_alone(tmp_path, cache):
    (tmp_path / "a.txt").write_text("ab " * 3000 + "zq " * 200)  # the tail is all zq
    data = prepare(config_of(tmp_path / "a.txt", val_fraction=0.05), cache)
    known = {data.tokenizer.token_bytes(i) for i in range(data.tokenizer.vocab_size)}
    assert b" ab" in known
    assert b" zq" in known  # 200 of them, 160 or so before the cut
    data = prepare(config_of(tmp_path / "a.txt", val_fraction=0.3), cache)
    assert b" zq" not in {data.tokenizer.token_bytes(i) for i in range(data.tokenizer.vocab_size)}


def test_a_character_tokenizer_has_no_end_of_text_for_one_document(tmp_path, cache):
    (tmp_path / "a.txt").write_text("abcab" * 10)
    data = prepare(config_of(tmp_path / "a.txt", CharTokenizerConfig()), cache)
    assert (data.tokenizer.vocab_size, data.tokenizer.eot_id) == (3, None)
    assert (len(data.train.ids), len(data.val.ids)) == (45, 5)


def test_the_hash_moves_with_text_split_and_tokenizer_and_not_with_names(folder, cache):
    base = prepare(config_of(folder), cache).sha256
    changed = [
        prepare(config_of(folder, val_fraction=0.3), cache).sha256,
        prepare(config_of(folder, split="tail"), cache).sha256,
        prepare(config_of(folder, ByteTokenizerConfig()), cache).sha256,
    ]
    (folder / "00.txt").rename(folder / "000.txt")
    assert prepare(config_of(folder), cache).sha256 == base
    (folder / "01.txt").write_text("another")
    changed.append(prepare(config_of(folder), cache).sha256)
    assert len({base, *changed}) == 5


def test_the_second_time_comes_from_the_cache_and_is_the_same(folder, cache):
    stages = []
    first = prepare(config_of(folder), cache)
    second = prepare(config_of(folder), cache, lambda stage, done, total: stages.append(stage))
    assert (first.summary["cache"], second.summary["cache"]) == ("built", "found")
    assert set(stages) == {"read"}
    assert np.array_equal(first.train.ids, second.train.ids)
    assert first.summary | {"cache": ""} == second.summary | {"cache": ""}


def test_the_summary_is_json_and_counts_what_is_in_the_files(folder, cache):
    data = prepare(config_of(folder), cache)
    summary = json.loads(json.dumps(data.summary))
    for side, file in (("train", data.train), ("val", data.val)):
        counts = summary[side]
        assert counts["tokens"] == len(file.ids)
        assert counts["documents"] == len(file.document_starts)
        assert counts["bytes_per_token"] == file.n_bytes / (len(file.ids) - counts["documents"])
    assert summary["train"]["documents"] + summary["val"]["documents"] == summary["documents"]
    assert summary["split"] == "document"


def test_progress_is_in_bytes_and_ends_at_the_total(folder, cache):
    told = []
    prepare(config_of(folder), cache, lambda *report: told.append(report))
    total = len("".join(DOCUMENTS).encode())
    last = {stage: (done, known) for stage, done, known in told}
    assert last["read"] == (total, 0)
    assert last["encode"] == (total, total)
    assert total // 2 < last["train tokenizer"][0] < total


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "train.starts", "tokenizer.json"])
def test_a_spoilt_file_in_the_cache_is_found_and_rebuilt(folder, cache, name):
    data = prepare(config_of(folder), cache)
    right = np.array(data.train.ids)
    spoilt = bytearray((data.train.path.parent / name).read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (data.train.path.parent / name).write_bytes(spoilt)
    again = prepare(config_of(folder), cache)
    assert again.summary["cache"] == f"rebuilt: {name} has another SHA-256 than it was written with"
    assert np.array_equal(again.train.ids, right)
    assert prepare(config_of(folder), cache).summary["cache"] == "found"


@pytest.mark.parametrize("name", ["train.bin", "manifest.json", "meta.json"])
def test_a_file_missing_or_cut_off_in_the_cache_is_found_and_rebuilt(folder, cache, name):
    entry = prepare(config_of(folder), cache).train.path.parent
    (entry / name).write_bytes((entry / name).read_bytes()[:-1])
    assert prepare(config_of(folder), cache).summary["cache"].startswith("rebuilt: ")
    (entry / name).unlink()
    assert prepare(config_of(folder), cache).summary["cache"].startswith("rebuilt: ")


def test_a_build_that_fails_leaves_nothing_in_the_cache(tmp_path):
    def build(folder):
        (folder / "half.bin").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device.*Free some space"):
        open_entry(tmp_path / "key", build)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_an_entry_appears_under_its_name_all_at_once(tmp_path):
    """The folder that was written is the entry, renamed: the same inode, not a copy of it."""
    written = []

    def build(folder):
        (folder / "a.bin").write_bytes(b"a")
        assert not entry.exists()
        written.append(folder.stat().st_ino)

    entry = tmp_path / "key"
    open_entry(entry, build)
    assert written == [entry.stat().st_ino]


def test_what_a_killed_process_left_is_cleared_away_by_the_next(tmp_path):
    left = tmp_path / ".0123456789ab-xyz"
    left.mkdir()
    (left / "half.bin").write_bytes(b"half")
    entry = tmp_path / "0123456789abcdef"
    assert open_entry(entry, lambda folder: None) == "built"
    assert not left.exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_entry(folder, cache):
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from assay.data.prepare import prepare; from assay.data.config import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "prepare(DataConfig(text=sys.argv[1], tokenizer=ByteTokenizerConfig()), Path(sys.argv[2]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, folder, cache], capture_output=True, text=True, check=False
    )
    assert "DataError" in ran.stderr
    assert "cannot write the prepared text (File too large)" in ran.stderr
    assert all(path.suffix == ".lock" for path in cache.iterdir())


def test_a_cache_that_cannot_be_a_folder_is_one_sentence(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the prepared text"):
        prepare(config_of(folder), tmp_path / "file")


def test_two_processes_at_once_build_one_entry(folder, cache):
    code = (
        "import sys; from pathlib import Path\n"
        "from assay.data.prepare import prepare; from assay.data.config import *\n"
        "print(prepare(DataConfig(text=sys.argv[1]), Path(sys.argv[2])).summary['cache'])"
    )
    command = [sys.executable, "-c", code, folder, cache]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0].strip() for process in running]
    assert sorted(said) == ["built", "found", "found"]
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_the_environment_names_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "named"))
    assert cache_folder(None) == tmp_path / "named"
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("ASSAY_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "assay"


def test_a_tokenizer_from_a_file_is_used_and_its_content_is_part_of_the_key(folder, cache):
    path = folder.parent / "tokenizer.json"
    hashes = set()
    for size in (260, 270):
        tokenizer = train_bpe(iter(DOCUMENTS), vocab_size=size)
        path.write_bytes(tokenizer.saved()[1])
        data = prepare(config_of(folder, FileTokenizerConfig(path=str(path))), cache)
        assert data.tokenizer.sha256 == tokenizer.sha256
        hashes.add(data.sha256)
    assert len(hashes) == 2


def test_ids_take_two_bytes_up_to_65536_tokens():
    assert [token_dtype(size).itemsize for size in (257, 1 << 16, (1 << 16) + 1)] == [2, 2, 4]


def test_files_are_mapped_and_read_only(folder, cache):
    data = prepare(config_of(folder), cache)
    assert isinstance(data.train.ids, np.memmap)
    assert data.train.ids.dtype == np.uint16
    assert find_fault(data.train.path.parent) is None
    assert Path(data.train.path).stat().st_size == 2 * len(data.train.ids)
    with pytest.raises(ValueError, match="read-only"):
        data.train.ids[0] = 1


def test_what_was_prepared_opens_again_without_the_text(folder, cache):
    first = prepare(config_of(folder), cache)
    shutil.rmtree(folder)
    again = reopen(json.loads(json.dumps(first.summary)), cache)
    assert again.sha256 == first.sha256
    assert again.tokenizer.sha256 == first.tokenizer.sha256
    assert np.array_equal(again.train.ids, first.train.ids)
    assert np.array_equal(again.val.document_starts, first.val.document_starts)


@pytest.mark.parametrize("name", ["", "../cache", "0" * 64, None])
def test_a_summary_of_no_entry_opens_nothing(folder, cache, name):
    summary = prepare(config_of(folder), cache).summary
    assert reopen(summary | {"prepared": name}, cache) is None


def forged(entry, name, content):
    """Put a file into an entry of the cache, and its hash into the manifest."""
    (entry / name).write_bytes(content)
    manifest = json.loads((entry / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    (entry / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "forge", "said"),
    [
        ("train.bin", lambda old: old[:-2] + b"\xff\xff", "expected ids below 2"),
        ("val.bin", lambda old: old[:-2], "tokens of"),
        ("train.bin", lambda old: b"", "tokens of"),
        ("train.starts", lambda old: b"\xff" * len(old), "places of tokens, in order"),
        ("val.starts", lambda old: b"\x7f" * len(old), "places of tokens, in order"),
        ("val.starts", lambda old: old + old, "tokens of"),
        ("meta.json", lambda old: b"{}", "the counts of both sides"),
        ("meta.json", lambda old: b"[" * 4000, "the counts of both sides"),
        ("meta.json", lambda old: old + b" " * 9999, "the counts of both sides"),
        ("meta.json", lambda old: old.replace(b'"tokens": ', b'"tokens": -'), "the counts of both"),
        ("meta.json", lambda old: old.replace(b'"bytes"', b'"others"'), "the counts of both sides"),
    ],
)
def test_a_forged_entry_under_hashes_that_fit_is_one_sentence(folder, cache, name, forge, said):
    """Models and kernels look ids up unasked: one over the vocabulary would read other memory."""
    data = prepare(config_of(folder), cache)
    entry = data.train.path.parent
    content = (entry / name).read_bytes()
    del data
    forged(entry, name, forge(content))
    with pytest.raises(DataError, match=said) as caught:
        prepare(config_of(folder), cache)
    assert "Remove the folder" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes")
@pytest.mark.parametrize("name", ["manifest.json", "train.bin", "meta.json"])
def test_a_pipe_or_a_device_in_an_entry_is_not_waited_for(folder, cache, name):
    entry = prepare(config_of(folder), cache).train.path.parent
    for put in (os.mkfifo, lambda place: place.symlink_to("/dev/zero")):
        (entry / name).unlink()
        put(entry / name)
        assert find_fault(entry) is not None
        assert prepare(config_of(folder), cache).summary["cache"].startswith("rebuilt")
