"""CONTRIBUTING.md: each diff is applied to a copy, and what stands under it is run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
EXAMPLES = re.findall(
    r"^## Add an? (\w+)\n.*?```diff\n(.*?)```\n+```\n(.*?)```", PAGE.read_text(), re.DOTALL | re.M
)


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]


def test_the_four_families_are_shown():
    assert [name for name, *_ in EXAMPLES] == ["norm", "position", "sampler", "optimizer"]


@pytest.mark.parametrize(("name", "diff", "commands"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_an_addition_touches_one_file_of_src_one_test_and_the_changelog(name, diff, commands):
    touched = sorted(re.findall(r"^\+\+\+ b/(\S+)", diff, re.M))
    assert [path.partition("/")[0] for path in touched] == ["CHANGELOG.md", "src", "tests"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "diff", "commands"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_an_addition_applies_keeps_the_contract_and_passes_its_test(name, diff, commands, tmp_path):
    for part in ("src", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    for file in ("CHANGELOG.md", "pyproject.toml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "the.diff").write_text(diff)
    run(["git", "apply", "--unsafe-paths", "--verbose", "the.diff"], tmp_path)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "assay"
        run([sys.executable, "-m", "assay", *arguments], tmp_path)
    (test,) = re.findall(r"^\+def (test_\w+)", diff, re.M)
    (file,) = re.findall(r"^\+\+\+ b/(tests/\S+)", diff, re.M)
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"{file}::{test}"], tmp_path)
