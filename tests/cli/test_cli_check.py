"""`assay check` on the command line: words, one line of JSON, an exit status, and nothing left."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import TEXT
from typer.main import get_command

from assay.cli import app
from assay.cli.check import _scratch
from caches import cache_in
from patience import HANG_S, wait_until

ROOT = Path(__file__).parents[2]


def shown():
    """Every command with a `$` before it in the page on checks, and those in the help."""
    for line in (ROOT / "docs/checking.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("$ assay "):
            yield line.removeprefix("$ ")


@pytest.mark.parametrize("line", list(shown()))
def test_a_command_shown_on_the_page_is_understood_to_its_end(line):
    """The test of all pages stops at the first word of a group."""
    _, name, *arguments = shlex.split(line, comments=True)
    command = get_command(app).commands[name]
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments)


def test_there_are_commands_on_the_page():
    names = {tuple(line.split()[1:3]) for line in shown()}
    assert {("check", n) for n in ("resume", "determinism", "data", "cache")} < names
    assert ("data", "show") in names


@pytest.mark.parametrize("name", ["", "resume", "determinism", "data", "cache"])
def test_every_check_explains_itself(assay, name):
    result = assay("check", *name.split(), "--help")
    assert result.status == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("name", ["data", "cache"])
def test_words_go_to_stderr_and_one_line_to_stdout(assay, trained, name):
    result = assay("check", name, trained)
    assert result.status == 0, result.stderr
    row = json.loads(result.stdout)
    assert (row["check"], row["run"], row["fine"]) == (name, "cats", True)
    assert result.stdout.count("\n") == 1
    for finding in row["findings"].values():
        assert finding["fine"] is True
        assert finding["words"] in result.stderr
    silent = assay("check", name, trained, "--json")
    assert silent.stderr == ""
    assert json.loads(silent.stdout) == row


def test_a_check_that_fails_is_status_1_and_says_which_file(assay, trained):
    weights = Path("runs/cats/checkpoints/step-000006/model.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = assay("check", "data", trained)
    assert result.status == 1
    row = json.loads(result.stdout)
    assert [n for n, f in row["findings"].items() if not f["fine"]] == ["step-000006"]
    assert row["fine"] is False
    assert "NOT step-000006" in result.stderr
    assert "NOT what they were" in result.stderr
    assert weights.exists()  # nothing was set aside


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["check", "data", "nobody"], 1, "no run of this name"),
        (["check", "resume", "cats", "--steps", "4"], 2, "--steps: 4 found; expected at most 3"),
        (["check", "determinism", "cats", "--steps", "7"], 2, "expected at most 6"),
        (["check", "resume", "cats", "--keep", "."], 2, "--keep: . is there already"),
    ],
)
def test_what_cannot_be_checked_is_one_line(assay, trained, arguments, status, told):
    result = assay(*arguments)
    assert (result.status, result.stdout) == (status, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def started(tmp_path, *arguments):
    (tmp_path / "cats.txt").write_text(TEXT)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    added = {"ASSAY_CACHE": cache_in(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "assay", *arguments],
        cwd=tmp_path,
        env=os.environ | added | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(folder):
    """Processes that name the folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(path)
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_folder_and_no_process(tmp_path, assay, trained, number, status):
    child = started(tmp_path, "check", "resume", "cats")
    scratch = tmp_path / "tmp"
    wait_until(lambda: list(scratch.glob("assay-check-*/unbroken")) and workers(scratch), child)
    child.send_signal(number)
    told = child.communicate(timeout=HANG_S)
    assert child.returncode == status, told
    assert list(scratch.iterdir()) == []
    # one that was just being started ends when it finds its parent gone
    wait_until(lambda: not workers(scratch))


def test_a_folder_to_be_kept_stays_and_any_other_goes(tmp_path):
    for keep in (tmp_path / "deep/kept", None):
        with contextlib.suppress(KeyboardInterrupt), _scratch(keep) as folder:
            (folder / "run").mkdir()
            raise KeyboardInterrupt
        assert folder.exists() == (keep is not None)
