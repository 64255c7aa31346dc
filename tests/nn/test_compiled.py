"""Code through torch.compile, the way an engine compiles it: blocks one by one, sharing theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compiled_code.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        ["blocks", "blocks", {"mixer.n_kv_heads": 2, "mixer.qk_norm": True}],
        ["blocks", "blocks", {"position": "alibi", "mixer.window": 100}],
        ["blocks", "fused", {"position": "alibi"}],
        ["chunks"],
    ],
    ids=str,
)
def test_one_compiled_graph_serves_every_layer_and_changes_rounding_only(what):
    command = [sys.executable, str(SCRIPT), json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["graphs"] == 1
    assert found["apart"] < 1e-10  # float64, as in `test_contract`
