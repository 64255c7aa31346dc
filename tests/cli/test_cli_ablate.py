import os
import subprocess
import sys

import pytest
from small_run import SMALL, TEXT

from assay.cli.ablate import _split


@pytest.fixture
def assay(tmp_path):
    (tmp_path / "cats.txt").write_text(TEXT)
    env = os.environ | {"ASSAY_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "assay", *arguments],
            capture_output=True, text=True, cwd=tmp_path, env=env, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_study_is_planned_run_told_and_not_run_twice(tmp_path, assay):
    command = ["ablate", "model.norm=rms,none", "cats.txt", *SMALL, "--seeds", "2"]
    plan = assay(*command, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "2 arms x 2 seeds = 4 runs, 0 of them made already" in plan.stderr
    assert "2 seeds can see a difference of" in plan.stderr
    assert not list((tmp_path / "lab/cells").iterdir())
    assert not list((tmp_path / "lab/studies").iterdir())
    done = assay(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lab/studies/norm\n"
    assert done.stderr.count("done after") == 4
    assert "model.norm=none: " in done.stderr
    assert "| model.norm=none |" in (tmp_path / "lab/studies/norm/report.md").read_text()
    again = assay(*command)
    assert "4 of them made already" in again.stderr
    assert "done after" not in again.stderr
    assert again.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.norm=rms"], "fields: none with several values found"),
        (["model.nrom=rms,none"], "model.nrom: unknown field"),
        (["model.norm=rms,rms"], "are one config"),
        (["model.norm=rms,none", "--metric", "accuracy"], "--metric: 'accuracy' found"),
        (["model.norm=rms,none", "--name", "../up"], "run name: '../up' found"),
    ],
)
def test_a_mistake_is_one_line(assay, arguments, message):
    found = assay("ablate", *arguments, "cats.txt", *SMALL)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("layer,rms,none", ["layer", "rms", "none"]),
        ("1e-3", ["1e-3"]),
        ('{kind = "layer", eps = 1e-3},rms', ['{kind = "layer", eps = 1e-3}', "rms"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("'a,b',c", ["'a,b'", "c"]),
    ],
)
def test_values_are_cut_at_the_commas_between_them(text, values):
    assert _split(text) == values
