"""Runs whose layers go through torch.compile, in a process of their own.

The shape checks that tests put around every function cannot be traced, nor would a user have them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TEXT

from patience import HANG_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here"
    ),
]
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from assay.runs.run import Run
from assay.schema import override
from tiny_run import bits_of, config_of, finish, stopping_at

folder = Path(sys.argv[1])
compiled = config_of(folder / "text.txt", train__compile="on", model__n_layers=2)


def trained(name, **fields):
    changes = {key.replace("__", "."): value for key, value in fields.items()}
    run = Run.create(override(compiled, changes), folder / name)
    return run, [report.loss_nats for report in finish(run)]


whole, _ = trained("whole", model__dropout=0.1)
broken = Run.create(whole.config, folder / "broken")
finish(broken, stop=stopping_at(5))
finish(Run.open(broken.folder.path))
digests = [hashlib.sha256(repr(bits_of(run)).encode()).hexdigest() for run in (whole, broken)]
losses, eager = trained("compiled")[1], trained("eager", train__compile="off")[1]
flag = whole.folder.read_manifest()["machine"]["compiled"]
print(json.dumps({"losses": losses, "eager": eager, "digests": digests, "flag": flag}))
"""


def test_a_compiled_run_goes_on_to_the_same_bits_and_stays_near_the_eager_one(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["flag"] is True
    assert found["digests"][0] == found["digests"][1]
    assert found["losses"] == pytest.approx(found["eager"], rel=1e-4)
    assert found["losses"] != found["eager"]  # else nothing was compiled
