import json
import os
import subprocess
import sys

import pytest


def doctor(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "assay", "doctor", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"ASSAY_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_doctor_says_in_words_and_for_programs_the_same_things(tmp_path):
    done = doctor(cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == (1 if told["mend"] else 0)
    for name, finding in told["findings"].items():
        (line,) = [row for row in done.stderr.splitlines() if f" {name} " in row[:18] + " "]
        assert line.startswith("MEND" if name in told["mend"] else "ok")
        assert finding["found"] in line
    assert list(tmp_path.iterdir()) == []  # it changes nothing


@pytest.mark.slow
def test_for_programs_alone_nothing_is_said_in_words(tmp_path):
    done = doctor("--json", cwd=tmp_path)
    assert done.stderr == ""
    assert json.loads(done.stdout)["findings"]["versions"]["fine"] is True
