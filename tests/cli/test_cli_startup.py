import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import SMALL, TEXT

from caches import cache_in
from patience import HANG_S, wait_until

ASSAY = [sys.executable, "-m", "assay"]


def environment(tmp_path):
    return os.environ | {"ASSAY_CACHE": cache_in(tmp_path), "OMP_NUM_THREADS": "1"}


def test_help_imports_neither_torch_nor_matplotlib():
    heavy = "{'torch', 'numpy', 'matplotlib', 'pydantic'}"
    code = f"import sys, assay.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_short_run_loads_neither_pytorchs_compiler_nor_algebra(tmp_path, native):
    """Whose import takes seconds; a model that is not compiled has no need of them."""
    (tmp_path / "cats.txt").write_text(TEXT)
    heavy = "{'torch._dynamo', 'sympy', 'scipy', 'transformers'}"
    for optimizer in ("muon", "adamw"):
        arguments = ["train", "cats.txt", *SMALL, f"train.optimizer.kind={optimizer}"]
        code = (
            f"import atexit, sys; sys.argv[1:] = {arguments}; "
            f"atexit.register(lambda: print({heavy} & set(sys.modules))); "
            "from assay.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "command",
    ["", "train", "resume", "generate", "show", "count", "data", "runs", "bench", "doctor"],
)
def test_every_command_explains_itself(assay, command):
    result = assay(*command.split(), "--help")
    assert result.status == 0
    assert "Usage" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_ends_in_the_same_bits(tmp_path, number, status):
    (tmp_path / "cats.txt").write_text(TEXT)
    settings = [*SMALL, "train.steps=600", "train.checkpoint_every=0", "eval.every=600"]
    kept = {"cwd": tmp_path, "env": environment(tmp_path), "text": True}
    train = [*ASSAY, "train", "cats.txt", *settings, "--name"]
    subprocess.run([*train, "whole"], check=True, capture_output=True, **kept)

    child = subprocess.Popen(
        [*train, "cut"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, **kept
    )
    metrics = tmp_path / "runs/cut/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 20, child)
    child.send_signal(number)
    _, told = child.communicate(timeout=HANG_S)
    assert child.returncode == status, told
    assert "assay resume cut" in told

    subprocess.run([*ASSAY, "resume", "cut"], check=True, capture_output=True, **kept)
    for name in (
        "metrics.jsonl",
        *(f"checkpoints/step-000600/{f}.safetensors" for f in ("model", "optim")),
    ):
        whole, cut = (tmp_path / "runs" / run / name for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name


@pytest.mark.slow
def test_a_pipe_that_closes_early_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m assay show --fields | head -1",
        shell=True, capture_output=True, text=True, check=True, cwd=Path(tmp_path),
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("model")
