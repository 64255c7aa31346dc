"""What `--help` of every command prints is laid out as it was meant."""

import inspect

import pytest
import typer

from assay.cli import app


def commands(command, name):
    yield name, inspect.cleandoc(command.help or "")
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}")


ALL = dict(commands(typer.main.get_command(app), "assay"))


@pytest.mark.parametrize("name", ALL)
def test_help_has_no_markup_left_and_no_line_that_80_columns_would_break(name):
    first, *others = ALL[name].split("\n\n")
    assert len(first) > 20
    assert r"\b" not in ALL[name]
    prose = [paragraph for paragraph in others if not paragraph.startswith("\b")]
    assert [line for paragraph in prose for line in paragraph.splitlines() if len(line) > 78] == []
