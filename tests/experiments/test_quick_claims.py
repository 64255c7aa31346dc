"""A part of the paper at the quick budget, from the command line to a verified number."""

import json
import os
import subprocess
import sys

import pytest

from caches import cache_in
from patience import HANG_S

CLAIMS = ("tying-parameters", "init-loss", "sigma-eps", "weights")


@pytest.mark.slow
def test_claims_are_run_reported_and_verified_from_the_command_line(tmp_path):
    environment = os.environ | {"ASSAY_CACHE": cache_in(tmp_path), "OMP_NUM_THREADS": "1"}

    def assay(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "assay", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG_S,
            check=False,
        )  # fmt: skip

    ran = assay("claims", "run", *CLAIMS, "--budget", "quick", "--workers", "2", "--out", "report")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "report"
    for claim in CLAIMS:
        assert f"{claim}: " in ran.stderr
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in stored["claims"]}
    assert verdicts["tying-parameters"] == "holds only when"
    assert verdicts["init-loss"] == "holds only when"
    numbers = {n["id"]: n for claim in stored["claims"] for n in claim["numbers"]}
    slope = numbers["init-loss.slope"]
    assert slope["low"] < 1.02
    assert slope["high"] > 0.95
    again = assay("verify", "report#init-loss.slope", "--cheap")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("init-loss.slope: reproduced bit for bit")
    (tmp_path / "report" / "numbers.csv").write_text("edited")
    edited = assay("verify", "report")
    assert edited.returncode == 1
    assert "numbers.csv: changed since the report was written" in edited.stderr
