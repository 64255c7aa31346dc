"""Text, tokenizer and prepared tokens changed behind a run's back: none other is ever used."""

import hashlib
import json
import os
import random
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from hostile_run import FIELDS, TEXT, files_of, lay_out, without_timing
from mutations import mutated_bytes

from assay.config import RunConfig
from assay.data.cache import cache_folder
from assay.data.prepare import prepare
from assay.errors import AssayError
from assay.runs.run import Run
from assay.schema import override

HASH = re.compile(r"\b[0-9a-f]{16}\b")
TOKENIZERS = ("char", "byte", "bpe")


@pytest.fixture(params=TOKENIZERS)
def begun(request, tmp_path, monkeypatch):
    """A run of four steps stopped after one, its text three files in a folder, and its tokens."""
    without_timing(monkeypatch, tmp_path)
    lay_out(parts_of(TEXT), tmp_path / "texts")
    fields = FIELDS | {"data.text": str(tmp_path / "texts"), "train.steps": 4}
    fields |= {"data.tokenizer": request.param, "model.n_layers": 1, "model.vocab_size": 600}
    run = Run.create(override(RunConfig(), fields), tmp_path / "run")
    list(run.train(stop=lambda: True))
    return run, tokens_of(prepare(run.config.data)), files_of(run.folder.path)


def parts_of(text):
    third = len(text) // 3
    parts = (text[:third], text[third : 2 * third], text[2 * third :])
    return {f"{name}.txt": part.encode() for name, part in zip("abc", parts, strict=True)}


def tokens_of(dataset):
    return [np.array(side.ids) for side in (dataset.train, dataset.val)]


def same_tokens(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def change_text(parts, rng):
    """Other characters in one file, all of them UTF-8."""
    name = rng.choice(sorted(parts))
    text = parts[name].decode()
    at = rng.randrange(len(text))
    other = rng.choice([c for c in "abcđ é1\n" if c != text[at]])
    return parts | {name: (text[:at] + other + text[at + 1 :]).encode()}


def cut_text(parts, rng):
    name = rng.choice(sorted(parts))
    text = parts[name].decode()
    return parts | {name: text[: rng.randrange(len(text))].encode()}


def reorder_text(parts, rng):
    """The files under each other's names."""
    order = [(1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)][rng.randrange(5)]
    contents = list(parts.values())
    return dict(zip(parts, (contents[place] for place in order), strict=True))


def drop_text(parts, rng):
    name = rng.choice(sorted(parts))
    return {other: content for other, content in parts.items() if other != name}


def add_text(parts, rng):
    return parts | {f"{rng.choice('ABd')}.txt": b"more"}


TEXT_CHANGES = {
    "changed": change_text,
    "truncated": cut_text,
    "reordered": reorder_text,
    "a file gone": drop_text,
    "a file more": add_text,
}


def rename_text(parts, rng):
    """Other names in the same order: what the files are called is part of no hash."""
    names = sorted(rng.sample(["k", "l", "m1", "m2", "z", "Ω"], len(parts)))
    return {f"{name}.txt": content for name, content in zip(names, parts.values(), strict=True)}


def resumed(path):
    """Take one step more; return what the run trains on, or the sentence that refused."""
    run = Run.open(path)
    try:
        with run.at_work() as session:
            return tokens_of(session.parts.dataset)
    except AssayError as error:
        return str(error)


def shows_both(message, began):
    """Whether a refusal shows the hash the run began with and another one."""
    return began[:16] in message and len(set(HASH.findall(message)) - {began[:16]}) == 1


def test_a_run_goes_on_with_its_own_text_or_not_at_all(begun, tmp_path, load, note):
    run, tokens, files = begun
    data = json.loads(files["manifest.json"])["data"]
    rng, ends = random.Random(6), Counter()
    for _ in range(load(1, 17)):
        for kind, change in TEXT_CHANGES.items():
            parts = change(parts_of(TEXT), rng)
            lay_out(parts, tmp_path / "texts")
            said = resumed(lay_out(files, run.folder.path))
            assert isinstance(said, str), f"text {kind}: the run went on"
            assert shows_both(said, data["data_sha256"]), f"text {kind}: {said}"
            ends[f"text {kind}: refused with both hashes"] += 1
        lay_out(rename_text(parts_of(TEXT), rng), tmp_path / "texts")
        assert same_tokens(resumed(lay_out(files, run.folder.path)), tokens)
        ends["files renamed in their order: went on with the same tokens"] += 1
        lay_out(parts_of(TEXT), tmp_path / "texts")
    note("text", ends)


def test_a_run_goes_on_with_its_own_tokenizer_or_not_at_all(begun, load, note):
    run, _, files = begun
    (name,) = (name for name in files if name.startswith("tokenizer/"))
    rng, ends = random.Random(7), Counter()
    for number in range(load(2, 40)):
        harmed = mutated_bytes(files[name], rng)
        while harmed == files[name]:
            harmed = mutated_bytes(files[name], rng)
        said = resumed(lay_out(files | {name: harmed}, run.folder.path))
        assert isinstance(said, str), f"tokenizer {number}: the run went on"
        hashes = len(set(HASH.findall(said))) == 2
        ends[f"tokenizer changed: refused {'with both hashes' if hashes else 'as unreadable'}"] += 1
    said = resumed(lay_out(files | other_tokenizer(name, files[name]), run.folder.path))
    assert shows_both(said, hashlib.sha256(files[name]).hexdigest()), said
    ends["tokenizer of another text: refused with both hashes"] += 1
    note("text-tokenizer", ends)


def other_tokenizer(name, content):
    """A whole tokenizer, not the run's."""
    if name.endswith("chars.json"):
        fields = json.loads(content)
        return {name: json.dumps(fields | {"alphabet": fields["alphabet"][1:]}).encode()}
    if name.endswith("bytes.json"):
        return {name: json.dumps({"kind": "bytes"}).encode()}
    tree = json.loads(content)
    tree["model"]["merges"] = tree["model"]["merges"][:-1]
    return {name: json.dumps(tree).encode()}


def test_damaged_tokens_in_the_cache_are_made_again_before_they_are_trained_on(begun, load, note):
    run, tokens, files = begun
    (entry,) = (path for path in cache_folder(None).iterdir() if (path / "meta.json").is_file())
    whole = files_of(entry)
    rng, ends = random.Random(8), Counter()
    filled = [name for name, content in whole.items() if content]
    for _ in range(load(1, 12)):
        for name in rng.sample(filled, load(1, len(filled))):
            harmed = bytearray(content := whole[name])
            harmed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            lay_out(whole | {name: bytes(harmed)}, entry)
            assert prepare(run.config.data).summary["cache"].startswith("rebuilt: "), name
            lay_out(whole | {name: bytes(harmed)}, entry)
            assert same_tokens(resumed(lay_out(files, run.folder.path)), tokens)
            ends["a bit flipped in a file of the cache: noticed, made again, the same tokens"] += 1
    note("text-cache", ends)


def test_damaged_tokens_are_refused_where_the_text_is_gone_too(begun, tmp_path):
    run, tokens, files = begun
    shutil.rmtree(tmp_path / "texts")
    assert same_tokens(resumed(lay_out(files, run.folder.path)), tokens)
    for path in cache_folder(None).glob("*/train.bin"):
        os.truncate(path, path.stat().st_size - 1)
    assert "no file, folder or text named" in resumed(lay_out(files, run.folder.path))


@pytest.fixture(scope="module")
def told():
    return {}


@pytest.fixture
def note(told, record):
    """Add to what a test found with the tokenizers before, and write down the sums."""

    def add(name, ends):
        sums = told.setdefault(name, Counter())
        sums.update(ends)
        said = "; ".join(f"{end} {count}" for end, count in sums.items())
        record(name, f"{sum(sums.values())} resumes, tokenizers {', '.join(TOKENIZERS)}", said)

    return add
