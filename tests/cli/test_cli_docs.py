"""Every command shown in the documents is one the command line understands."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from assay.cli import app
from assay.cli.arguments import build_config, tell_apart

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = sorted((ROOT / "src/assay/cli").glob("*.py"))


def commands():
    for page in [*PAGES, *HELP]:
        for line in page.read_text(encoding="utf-8").splitlines():
            words = line.strip()
            shown = words.startswith("assay ") and "..." not in words and "[" not in words
            if shown and "|" not in words:
                yield pytest.param(words, id=f"{page.name}: {words[:60]}")


def plugin_of_the_page():
    """The file that docs/variants.md shows."""
    page = (ROOT / "docs/variants.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return code


@pytest.fixture
def _max_norm(tmp_path, monkeypatch):
    """The plug-in of docs/variants.md where commands name it."""
    (tmp_path / "max_norm.py").write_text(plugin_of_the_page(), encoding="utf-8")
    for folder in ("recipes", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_max_norm")
def test_the_norm_of_the_page_keeps_the_contract():
    outcome = CliRunner().invoke(app, ["check", "variant", "max_norm.py:MaxNormConfig"])
    assert outcome.exit_code == 0, outcome.stderr
    assert "the same as its formula" in outcome.stderr


@pytest.mark.usefixtures("_max_norm")
@pytest.mark.parametrize("shown", list(commands()))
def test_a_command_shown_is_understood(shown):
    name, *arguments = shlex.split(shown, comments=True)[1:]
    command = get_command(app).commands[name]
    parsed = command.make_context(name, list(arguments)).params
    if name in ("train", "count", "show", "data"):
        given = tell_apart(parsed["arguments"])
        here = [
            path for path in given.files if path.exists()
        ]  # examples name files of the reader's
        given.files[:] = here
        if not (name == "show" and given.texts):
            build_config(given, parsed.get("preset"))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_is_a_config_and_changes_something(path):
    plain = build_config(tell_apart([]), None)
    assert build_config(tell_apart([str(path)]), None) != plain


def test_there_are_commands_to_check():
    assert len(list(commands())) > 20
