"""`assay data show`, beside `assay data TEXT`, which goes on as it was."""

import hashlib
import json
from pathlib import Path

import pytest
from small_run import SMALL, TEXT
from typer.main import get_command

from assay.cli import app


def test_the_text_of_a_step_is_shown_row_by_row(assay, trained):
    result = assay("data", "show", trained, "--step", 3)
    assert result.status == 0
    lines = result.stdout.splitlines()
    assert lines[::2] == [f"--- row {n} of 4, 17 tokens" for n in range(4)]
    assert all(line in TEXT for line in lines[1::2])
    for row, text in enumerate(lines[1::2]):
        alone = assay("data", "show", trained, "--step", 3, "--row", row)
        assert alone.stdout == text + "\n"


def test_for_programs_there_are_ids_and_the_hash_of_the_batch(assay, trained):
    row = json.loads(assay("data", "show", trained, "--step", 3, "--json").stdout)
    alphabet = sorted(set(TEXT))
    content = b""
    for number, shown in enumerate(row["rows"]):
        assert shown["row"] == number
        assert "".join(alphabet[i] for i in shown["tokens"]) == shown["text"]
        content += b"".join(i.to_bytes(8, "little") for i in shown["tokens"])
    assert row["batch_sha256"] == hashlib.sha256(content).hexdigest()
    one = json.loads(assay("data", "show", trained, "--step", 3, "--row", 2, "--json").stdout)
    assert one["rows"] == [row["rows"][2]]
    assert one["batch_sha256"] == row["batch_sha256"]


def test_control_characters_are_spelt_out_on_a_terminal_and_exact_elsewhere(assay, monkeypatch):
    Path("odd.txt").write_text("red \x1b[31m and\ttab\nline \x07 " * 60)
    assert assay("train", "odd.txt", *SMALL, "--name", "odd").status == 0
    exact = assay("data", "show", "odd", "--step", 1, "--row", 0).stdout
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = assay("data", "show", "odd", "--step", 1).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b" in shown
    assert "\\x" not in exact


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--step", "7"], 2, "--step: 7 found; expected 1 to 6"),
        (["--step", "1", "--row", "4"], 2, "--row: 4 found; expected 0 to 3"),
    ],
)
def test_a_step_or_row_that_is_not_there_is_one_line(assay, trained, arguments, status, told):
    result = assay("data", "show", trained, *arguments)
    assert (result.status, result.stdout) == (status, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_text_that_changed_is_refused_with_both_hashes(assay, trained, text):
    text.write_text(TEXT.replace("cat", "bat", 1))
    result = assay("data", "show", trained, "--step", 1)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.count("...") >= 2
    assert "the text and split changed" in result.stderr


def test_a_text_is_described_as_ever_and_one_named_show_by_its_path(assay, text):
    plain = assay("data", text, "data.tokenizer=char", "--json")
    assert plain.status == 0
    described = json.loads(plain.stdout)
    assert described["documents"] == 1
    text.rename("show")
    for arguments in (["./show"], ["--json", "./show"], ["data.tokenizer=char", "show"]):
        again = json.loads(assay("data", *arguments, "data.tokenizer=char", "--json").stdout)
        assert again["corpus_sha256"] == described["corpus_sha256"]


@pytest.mark.parametrize(
    "arguments", [["data", "--help"], ["data", "show", "--help"], ["data", "-h"]]
)
def test_both_explain_themselves(assay, arguments):
    result = assay(*arguments)
    assert result.status == 0
    assert "Usage: assay data" in result.stdout
    assert "--step" in result.stdout or "assay data show --help" in result.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--json"], ["a.txt"], ["./show"], ["text"], ["show.txt", "--json"]]
)
def test_only_the_name_of_another_command_is_no_text(arguments):
    parsed = get_command(app).commands["data"].make_context("data", list(arguments)).params
    texts = [argument for argument in arguments if not argument.startswith("--")]
    assert list(parsed["arguments"] or []) == texts
    assert parsed["as_json"] == ("--json" in arguments)
