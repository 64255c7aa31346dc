import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_run import TEXT, config_of

from assay.errors import AssayError, ConfigError, DataError, RunError
from assay.runs.folder import RunFolder
from assay.runs.manifest import code_version
from assay.runs.run import Run

CHECKOUT = Path(__file__).parents[2]


def refused(kind, config, path):
    """Create the run, which must fail in one sentence; return the sentence."""
    with pytest.raises(kind) as caught:
        Run.create(config, path)
    message = str(caught.value)
    assert message.count("\n") == 0
    assert message.endswith((".", "first"))
    return message


def test_a_name_that_is_taken_is_never_overwritten(tmp_path, text):
    Run.create(config_of(text), tmp_path / "runs" / "first")
    before = (tmp_path / "runs" / "first" / "config.json").read_bytes()
    message = refused(RunError, config_of(text, train__seed=1), tmp_path / "runs" / "first")
    assert "is there already and is never overwritten" in message
    assert message.endswith("assay resume first")
    assert (tmp_path / "runs" / "first" / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["Upper", "-dash", ".hidden", "a b", "é", "a" * 65, "semi;colon", "new\nline", "_x"]
)
def test_a_name_that_no_shell_or_disk_should_meet_is_refused(tmp_path, text, name):
    message = refused(ConfigError, config_of(text), tmp_path / "runs" / name)
    assert message.startswith(f"run name: {name!r} found; expected up to 64 of a-z, 0-9")
    assert not (tmp_path / "runs").exists()


def test_a_file_in_the_way_of_the_folder_is_one_sentence(tmp_path, text):
    (tmp_path / "runs").write_text("")
    message = refused(RunError, config_of(text), tmp_path / "runs" / "first")
    assert "the run folder cannot be made: " in message


def test_a_text_shorter_than_a_window_leaves_nothing_behind(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("seventeen letters")
    message = refused(DataError, config_of(short), tmp_path / "runs" / "first")
    assert "15 tokens found; expected at least 17" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"train__device": "tpu"}, ConfigError),
        ({"data__text": "nowhere.txt"}, DataError),
        ({"model__vocab_size": 5}, ConfigError),
    ],
)
def test_a_config_that_will_not_do_leaves_nothing_behind(tmp_path, text, changes, kind):
    refused(kind, config_of(text, **changes), tmp_path / "runs" / "first")
    assert not (tmp_path / "runs").exists()


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused_with_both_numbers(tmp_path, text):
    found = len(set(TEXT))
    message = refused(ConfigError, config_of(text, model__vocab_size=found - 1), tmp_path / "run")
    assert f"model.vocab_size: {found - 1} found; expected at least the tokenizer's {found}" in (
        message
    )


def test_a_vocabulary_left_open_is_the_tokenizers_and_a_larger_one_stays(tmp_path, text):
    taken = Run.create(config_of(text), tmp_path / "taken")
    padded = Run.create(config_of(text, model__vocab_size=64), tmp_path / "padded")
    assert taken.config.model.vocab_size == len(set(TEXT))
    assert padded.config.model.vocab_size == 64


@pytest.mark.parametrize("failing", ["config", "manifest", "chars"])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing_behind(
    tmp_path, text, monkeypatch, failing
):
    """Else the name would be taken by a folder that is no run."""
    Run.create(config_of(text), tmp_path / "filled-cache")

    def full(self, *arguments, write=Path.write_text, **keywords):
        if self.name.startswith(failing):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, *arguments, **keywords)

    def full_of_bytes(self, content, write=Path.write_bytes):
        return full(self, content, write=write)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        patch.setattr(Path, "write_bytes", full_of_bytes)
        message = refused(RunError, config_of(text), tmp_path / "run")
    assert "could not be written: No space left on device" in message
    assert not (tmp_path / "run").exists()
    Run.create(config_of(text), tmp_path / "run")


def canonical_hash(path):
    """SHA-256 of the config as sorted JSON without white space, as the manifest promises."""
    config = json.loads(path.read_text())
    return hashlib.sha256(
        json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def test_the_manifest_says_what_was_run_on_what_and_where(tmp_path, text):
    run = Run.create(config_of(text, train__seed=3), tmp_path / "run")
    manifest = run.folder.read_manifest()
    assert manifest["status"] == "started"
    assert manifest["config_sha256"] == canonical_hash(tmp_path / "run" / "config.json")
    assert manifest["seed"] == 3
    assert manifest["data"]["text"] == [str(text)]
    assert manifest["data"]["bytes"] == len(TEXT.encode())
    saved = (tmp_path / "run" / "tokenizer" / "chars.json").read_bytes()
    assert manifest["data"]["tokenizer_sha256"] == hashlib.sha256(saved).hexdigest()
    assert manifest["packages"]["torch"] == torch.__version__
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert (manifest["machine"]["device"], manifest["machine"]["precision"]) == ("cpu", "fp32")
    assert (manifest["stretches"], manifest["notes"]) == ([], [])


def test_the_hash_of_the_data_follows_the_text_and_the_hash_of_the_config_does_not(tmp_path, text):
    config = config_of(text)
    one = Run.create(config, tmp_path / "one").folder.read_manifest()
    text.write_text(TEXT.replace("17", "71"))
    other = Run.create(config, tmp_path / "other").folder.read_manifest()
    assert one["data"]["data_sha256"] != other["data"]["data_sha256"]
    assert one["config_sha256"] == other["config_sha256"]


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not in a git checkout")
def test_the_commit_is_that_of_the_checkout():
    def git(*arguments):
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    found = code_version()
    assert found == {"git_commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "-s"))}


def test_a_run_is_found_by_name_and_by_path(tmp_path, text):
    Run.create(config_of(text), tmp_path / "runs" / "first")
    by_name = Run.open("first", root=tmp_path / "runs")
    by_path = Run.open(tmp_path / "runs" / "first", root=tmp_path / "elsewhere")
    assert by_name.config == by_path.config
    assert by_name.folder.path == by_path.folder.path


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path, text):
    with pytest.raises(RunError, match="there are no runs there yet"):
        Run.open("frist", root=tmp_path / "runs")
    Run.create(config_of(text), tmp_path / "runs" / "first")
    with pytest.raises(RunError, match=r"frist: no run .* runs there: first"):
        Run.open("frist", root=tmp_path / "runs")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"n_layer": 1}}', "\x00"])
def test_a_damaged_config_file_is_one_sentence_with_its_path(tmp_path, text, content):
    Run.create(config_of(text), tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json: ") as caught:
        Run.open(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"data": {}}'])
def test_a_damaged_manifest_is_one_sentence_with_its_path(tmp_path, text, content):
    run = Run.create(config_of(text), tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(AssayError, match=r"manifest\.json: "):
        next(iter(run.train()))


def test_a_json_file_is_replaced_whole_or_not_at_all(tmp_path, text, monkeypatch):
    folder = Run.create(config_of(text), tmp_path / "run").folder
    before = folder.read_manifest()

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            folder.write_json("manifest.json", {"status": "torn"})
    assert folder.read_manifest() == before
    assert RunFolder(folder.path).read_config() == folder.read_config()
