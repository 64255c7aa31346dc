"""What a tired newcomer types: each ends in a sentence and a status, never in a traceback."""

import io
import json
import os
import shutil
import sys

import pytest
from small_run import SMALL


@pytest.mark.parametrize("command", [["generate"], ["resume"], ["show"], ["data"]])
def test_a_name_too_long_for_the_disk_is_one_sentence(assay, command):
    result = assay(*command, "x" * 5000)
    assert result.status == 1
    assert result.stderr.startswith("assay: ")
    assert "too long" in result.stderr
    assert result.stderr.count("\n") == 1


def test_output_that_cannot_be_written_is_one_sentence(assay, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        result = assay("show", "--fields")
        monkeypatch.undo()
    assert result.status == 1
    assert "standard output: No space left" in result.stderr


def test_a_terminal_of_few_letters_still_shows_every_field(assay, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert assay("show", "--fields").status == 0
    sys.stdout.flush()
    assert b"\\u" in raw.getvalue()
    assert b"model.d_model" in raw.getvalue()


def test_brackets_in_a_folder_are_no_markup(assay, text):
    result = assay("train", text, *SMALL, "--runs", "[/]x [b]", "--name", "cats")
    assert result.status == 0, result.stderr
    assert "assay generate '[/]x [b]/cats'" in result.stderr
    assert assay("runs", "--runs", "[/nope]").status == 0


@pytest.mark.parametrize("name", ["../cats", "a/b", "/tmp/cats", ".", ""])
def test_a_name_is_no_path_and_is_refused_before_the_text_is_read(assay, name):
    result = assay("train", "no-such-text.txt", "--name", name)
    assert result.status == 2
    assert "run name" in result.stderr


def test_an_empty_stop_string_is_refused(assay, trained):
    result = assay("generate", trained, "--stop", "")
    assert result.status == 2
    assert "stop: ''" in result.stderr


def test_a_pipe_named_as_text_is_told_apart_from_a_missing_file(assay, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    result = assay("data", "pipe.txt")
    assert result.status == 1
    assert "is a pipe" in result.stderr


def test_a_pipe_in_a_folder_is_skipped_and_not_waited_for(assay, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("abc " * 50)
    os.mkfifo(tmp_path / "notes" / "b.txt")
    (tmp_path / "notes" / "c.txt").symlink_to("nowhere")
    result = assay("data", "notes", "data.tokenizer=char", "--json")
    assert json.loads(result.stdout)["skipped"] == ["notes/b.txt", "notes/c.txt"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("data.tokenizer=file", "data.tokenizer.path: nothing found"),
        ("data.tokenizer.vocab_size=99999999999999", "data.tokenizer.vocab_size"),
        ("train.optimizer.lr=1e300", "train.optimizer.lr"),
    ],
)
def test_a_value_no_library_can_take_is_refused_at_its_place(assay, argument, said):
    result = assay("show", argument)
    assert result.status == 2
    assert said in result.stderr


def test_a_fraction_may_leave_out_its_zero(assay):
    assert json.loads(assay("show", "model.dropout=.25").stdout)["model"]["dropout"] == 0.25


def test_a_config_with_a_byte_order_mark_is_read(assay, tmp_path):
    (tmp_path / "a.toml").write_text("\ufeff[train]\nsteps = 7\n", encoding="utf-8")
    assert json.loads(assay("show", "a.toml").stdout)["train"]["steps"] == 7


def test_a_config_nested_without_end_is_one_sentence(assay, tmp_path):
    (tmp_path / "a.toml").write_text("a=" + "[" * 9000)
    result = assay("show", "a.toml")
    assert result.status == 2
    assert "not TOML" in result.stderr


@pytest.mark.parametrize("edit", [{"data": None}, {"stretches": {}}, {"packages": {}}])
def test_a_manifest_edited_by_hand_is_one_sentence(assay, trained, tmp_path, edit):
    path = tmp_path / "runs" / trained / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    result = assay("resume", trained)
    assert result.status == 1
    assert next(iter(edit)) in result.stderr


def test_a_config_emptied_by_hand_is_a_failed_run_not_a_usage_error(assay, trained, tmp_path):
    (tmp_path / "runs" / trained / "config.json").write_text("{}")
    result = assay("generate", trained)
    assert result.status == 1
    assert "config.json" in result.stderr


def test_text_is_not_taken_from_the_checkpoint_of_another_run(assay, text, trained, tmp_path):
    assay("train", text, *SMALL, "train.seed=5", "--name", "other")
    own = tmp_path / "runs" / trained / "checkpoints" / "step-000006"
    shutil.rmtree(own)
    shutil.copytree(tmp_path / "runs" / "other" / "checkpoints" / "step-000006", own)
    result = assay("generate", trained)
    assert result.status == 1
    assert "another config or text" in result.stderr


@pytest.mark.slow
def test_a_model_no_memory_holds_is_one_sentence(assay, text):
    result = assay("train", text, *SMALL, "model.d_model=2000000000", "--name", "huge")
    assert result.status == 1
    assert "not enough memory" in result.stderr
