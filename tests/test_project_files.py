"""Files that no test of ours runs: workflows pass their linters, and the pages build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def run(*command):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *map(str, command[1:])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_workflows_are_what_their_schema_says_and_safe():
    assert {path.stem for path in WORKFLOWS} == {"tests", "wheels", "docs"}
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    run("zizmor", "--offline", "--no-progress", ".github/workflows")


def test_a_fault_is_reported_with_what_doctor_says():
    text = (ROOT / ".github/ISSUE_TEMPLATE/fault.yml").read_text()
    assert "assay doctor --json" in text
    assert len(TEMPLATES) == 3


@pytest.mark.slow
def test_the_pages_build_and_every_link_in_them_is_there(tmp_path):
    run("mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site")
    page = (tmp_path / "site/api/index.html").read_text(encoding="utf-8")
    for name in ("NormVariant", "Family", "reference_logits", "GPT", "SamplingConfig"):
        assert f">{name}<" in page or f"{name}</" in page
