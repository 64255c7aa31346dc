"""Every file behind a run that changed is told, with both hashes; none is touched."""

import hashlib
import json
import os
import shutil

import pytest
from tiny_run import config_of, finish

from assay.checks.files import check_data
from assay.runs.run import Run


@pytest.fixture
def run(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    finish(run)
    return run


def wrong(run):
    """The findings that are not fine, by name."""
    return {f.name: f for f in check_data(run) if not f.fine}


def everything(folder):
    return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in folder.rglob("*")}


def test_a_run_that_nobody_touched_is_fine_and_stays_untouched(tmp_path, run):
    before = everything(tmp_path)
    found = {finding.name: finding for finding in check_data(run)}
    assert all(finding.fine for finding in found.values())
    assert everything(tmp_path) == before
    data = run.folder.read_manifest()["data"]
    assert found["text"].facts["sha256"] == [data["corpus_sha256"]]
    assert found["tokenizer"].facts["sha256"] == [data["tokenizer_sha256"]]
    expected = {"config", "text", "split", "tokenizer", "tokens' tokenizer", "step-000008"}
    assert expected < found.keys()
    assert {"tokens train.bin", "tokens val.bin", "step-000006"} < found.keys()


def entry_of(run):
    name = run.folder.read_manifest()["data"]["prepared"]
    (entry,) = (run.folder.path.parent / "cache").glob(name)
    return entry


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_changed_text_is_told_with_both_hashes(run, text):
    before = run.folder.read_manifest()["data"]["corpus_sha256"]
    flip(text, 0)
    (finding,) = wrong(run).values()
    assert finding.name == "text"
    kept, found = finding.facts["sha256"]
    assert kept == before != found
    assert kept[:16] in finding.words
    assert found[:16] in finding.words


def test_a_text_that_is_gone_is_told(run, text):
    text.unlink()
    assert list(wrong(run)) == ["text"]


@pytest.mark.parametrize("file", ["train.bin", "val.bin", "train.starts", "meta.json"])
def test_a_flipped_bit_in_the_prepared_tokens_is_told_with_both_hashes(run, file):
    path = entry_of(run) / file
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path)
    (finding,) = wrong(run).values()
    assert finding.name == f"tokens {file}"
    assert finding.facts["sha256"] == [before, hashlib.sha256(path.read_bytes()).hexdigest()]


def test_prepared_tokens_that_are_gone_are_no_fault_but_half_of_them_are(run):
    (entry_of(run) / "val.bin").unlink()
    assert list(wrong(run)) == ["tokens val.bin"]
    (entry_of(run) / "manifest.json").write_text("{")
    assert list(wrong(run)) == ["tokens"]
    shutil.rmtree(entry_of(run))
    assert wrong(run) == {}


def test_another_tokenizer_in_the_run_folder_is_told(run):
    path = run.folder.tokenizer / "chars.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"alphabet": fields["alphabet"][:-1]}))
    assert list(wrong(run)) == ["tokenizer"]
    path.write_text("[]")
    assert list(wrong(run)) == ["tokenizer"]


def test_a_tokenizer_file_that_changed_where_it_came_from_is_told(tmp_path, text, run):
    source = tmp_path / "mine"
    source.mkdir()
    config = config_of(text, data__tokenizer="bpe", data__tokenizer__vocab_size=260)
    bpe = Run.create(config, tmp_path / "bpe")
    shutil.copy(bpe.folder.tokenizer / "tokenizer.json", source)
    config = config_of(text, data__tokenizer={"kind": "file", "path": str(source)})
    foreign = Run.create(config, tmp_path / "foreign")
    assert wrong(foreign) == {}
    changed = (source / "tokenizer.json").read_text().replace('"version"', ' "version"', 1)
    (source / "tokenizer.json").write_text(changed)
    assert list(wrong(foreign)) == ["tokenizer source"]


def test_an_edited_config_is_told(run):
    path = run.folder.path / "config.json"
    path.write_text(path.read_text().replace('"batch_size": 4', '"batch_size": 2'))
    found = wrong(Run.open(run.folder.path))
    assert "edited" in found["config"].words


@pytest.mark.parametrize("file", ["model.safetensors", "optim.safetensors", "state.json"])
def test_an_old_checkpoint_is_looked_at_as_well_and_not_set_aside(run, file):
    older = run.folder.checkpoints / "step-000006"
    flip(older / file, 20)
    (finding,) = wrong(run).values()
    assert finding.name == "step-000006"
    assert file in finding.words
    assert older.is_dir()
    assert [p.name for p in older.parent.iterdir() if p.name.endswith("bad")] == []


def test_a_checkpoint_of_another_run_is_told(tmp_path, text, run):
    other = Run.create(config_of(text, train__seed=1), tmp_path / "other")
    finish(other)
    mine = run.folder.checkpoints / "step-000008"
    shutil.rmtree(mine)
    shutil.copytree(other.folder.checkpoints / "step-000008", mine)
    assert list(wrong(run)) == ["step-000008"]


def test_a_run_without_checkpoints_yet_is_fine(tmp_path, text):
    fresh = Run.create(config_of(text), tmp_path / "fresh")
    assert wrong(fresh) == {}
    assert "checkpoints" in {finding.name for finding in check_data(fresh)}


def test_a_text_from_standard_input_is_said_not_to_be_readable_again(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    config = run.config.model_copy(
        update={"data": run.config.data.model_copy(update={"text": ("-",)})}
    )
    found = {f.name: f for f in check_data(Run(run.folder, config))}
    assert found["text"].fine
    assert "standard input" in found["text"].words


def test_files_that_may_not_be_read_are_told(run):
    if os.geteuid() == 0:
        path = entry_of(run) / "train.bin"
        path.unlink()
        path.mkdir()  # root may read any file, and nobody a folder
    else:
        (entry_of(run) / "train.bin").chmod(0)
    assert list(wrong(run)) == ["tokens train.bin"]
