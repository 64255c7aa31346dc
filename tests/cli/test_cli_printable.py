"""What strangers wrote reaches a terminal as text and never as commands to it."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import SMALL

from assay.cli.sanitize import escaped, printable

CONTROLS = "\x00\x07\x08\r\x1b\x7f\x85\x9b\u200b\u202e\u2066\ufeff\ue000"


def steers(text):
    """Return what a terminal could take for a command: characters of Unicode's class C."""
    return [c for c in text if c not in "\n\t" and unicodedata.category(c).startswith("C")]


@given(st.text() | st.text(CONTROLS + "ab"))
def test_no_control_character_survives(text):
    assert not steers(printable(text))
    assert not steers(escaped(text))
    assert "\n" not in escaped(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_what_people_write_stays_as_it_is(text):
    assert printable(text) == text
    assert escaped(text) == text


def test_what_is_kept_is_kept():
    assert escaped("a\n\x1b", keep="\n") == "a\n\\x1b"
    assert printable("a\n\tb\x1b[2J") == "a\n\tb\N{REPLACEMENT CHARACTER}[2J"


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Let stdout pass for a terminal from here on."""
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: stream is sys.stdout)


def safe(result):
    assert not steers(result.stdout + result.stderr), (result.stdout, result.stderr)
    return result


@pytest.mark.parametrize(
    "name", ["x\x1b]0;owned\x07.txt", "x\nassay: all is well", "x\x9b2J.jsonl"]
)
def test_a_file_name_in_an_error_is_spelt_out_on_one_line(assay, name):
    result = safe(assay("data", name))
    assert result.status == 1
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["resume", "generate", "show"])
def test_the_name_of_a_run_that_is_not_there_is_spelt_out(assay, command):
    result = safe(assay(command, "x\x1b]0;owned\x07\nassay: all is well"))
    assert result.status == 1
    assert "x\\x1b]0;owned" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_config_error_is_spelt_out(assay):
    result = safe(assay("show", "model.norm=\x1b[31mrms"))
    assert (result.status, result.stderr.count("\n")) == (2, 1)


@pytest.fixture
def speaks_in_codes(assay, tmp_path):
    """A run on a text full of escape codes, which its model writes too."""
    (tmp_path / "codes.txt").write_text("\x1b[31m\x9b2J\x1b]0;owned\x07" * 200)
    trained = assay("train", "codes.txt", *SMALL, "--name", "codes")
    assert trained.status == 0, trained.stderr
    return trained


def test_the_sample_after_training_is_shown_without_codes(speaks_in_codes):
    assert (
        "owned" in speaks_in_codes.stderr or "\N{REPLACEMENT CHARACTER}" in speaks_in_codes.stderr
    )
    safe(speaks_in_codes)


@pytest.mark.parametrize("how", [(), ("-n", "2"), ("--json",)])
def test_generated_text_and_the_prompt_are_shown_without_codes(
    assay, speaks_in_codes, terminal, how
):
    result = safe(assay("generate", "codes", "-p", "\x1b[31m", "-m", "40", *how))
    assert result.status == 0
    assert result.stdout


def test_generated_text_in_a_file_is_what_the_model_wrote(assay, speaks_in_codes):
    """A pipe or a file is not a terminal: there the text is exact."""
    assert assay("generate", "codes", "-p", "\x1b[31m", "-m", "9").stdout.startswith("\x1b[31m")


def test_a_strangers_manifest_cannot_speak_to_the_terminal(assay, speaks_in_codes, tmp_path):
    path = tmp_path / "runs" / "codes" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["status"] = manifest["started"] = "\x1b]0;owned\x07"
    manifest["machine"]["device"] = "\x1b[2J"
    path.write_text(json.dumps(manifest))
    assert "owned" in safe(assay("runs")).stdout
    for command in (["runs", "--json"], ["show", "codes"], ["resume", "codes", "--anyway"]):
        safe(assay(*command))


@pytest.mark.usefixtures("terminal")
def test_a_config_of_a_stranger_is_shown_without_codes(assay, tmp_path):
    (tmp_path / "a.toml").write_text('data.text = "\\u009b2J\\u202e"\n')
    assert "\\x9b2J" in safe(assay("show", "a.toml")).stdout
