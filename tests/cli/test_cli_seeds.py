import json
import os
import re
import signal
import subprocess
import sys

import pytest

from caches import cache_in
from patience import HANG_S, wait_until

pytestmark = pytest.mark.slow  # several processes each
SMALL = [
    "model.d_model=16",
    "model.n_layers=1",
    "model.max_seq_len=16",
    "data.tokenizer=char",
    "train.steps=6",
    "train.batch_size=4",
    "train.device=cpu",
    "eval.every=3",
]


@pytest.fixture
def assay(tmp_path):
    (tmp_path / "poem.txt").write_text("".join(f"line {n} of many, {n * n}.\n" for n in range(300)))
    env = os.environ | {"ASSAY_CACHE": cache_in(tmp_path), "OMP_NUM_THREADS": "1"}

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "assay", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=env,
        )

    return start


def result(folder):
    return json.loads((folder / "manifest.json").read_text())["result"]["val_loss_nats"]


def test_seeds_are_runs_of_their_own_and_the_table_gives_their_losses(assay, tmp_path):
    run = assay("train", "poem.txt", *SMALL, "--seeds", "3", "--together", "3", "train.seed=5")
    out, err = run.communicate(timeout=HANG_S)
    assert run.returncode == 0, err
    assert out.split() == [f"runs/poem-1-s{seed}" for seed in (5, 6, 7)]
    losses = {seed: result(tmp_path / f"runs/poem-1-s{seed}") for seed in (5, 6, 7)}
    assert len(set(losses.values())) == 3
    for seed, loss in losses.items():
        assert f"runs/poem-1-s{seed}: seed {seed}, validation loss {loss:.4f} nats" in err
    mean, deviation = re.search(r"mean ([\d.]+), standard deviation ([\d.]+) over 3", err).groups()
    assert float(mean) == pytest.approx(sum(losses.values()) / 3, abs=1e-4)
    assert float(deviation) > 0


def test_without_a_number_what_is_fastest_is_timed_and_told(assay, tmp_path):
    run = assay("train", "poem.txt", *SMALL, "--seeds", "2", "--name", "two")
    _, err = run.communicate(timeout=HANG_S)
    assert run.returncode == 0, err
    assert re.search(r"runs at once and tokens/s in all: 1: [\d,]+, 2: [\d,]+; taken: [12]", err)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["two-s0", "two-s1"]


def test_an_interrupt_saves_all_and_says_how_to_go_on(assay, tmp_path):
    steps = [argument for argument in SMALL if "steps" not in argument]
    run = assay("train", "poem.txt", *steps, "train.steps=100000", "--seeds=2", "--together=2")
    metrics = tmp_path / "runs" / "poem-1-s1" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 500, run)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=HANG_S)
    assert run.returncode == 143, err
    assert "assay resume runs/poem-1-s0 runs/poem-1-s1" in err
    for seed in (0, 1):
        folder = tmp_path / f"runs/poem-1-s{seed}"
        assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
        assert list((folder / "checkpoints").iterdir())


def test_several_runs_go_on_together(assay, tmp_path):
    first = assay("train", "poem.txt", *SMALL, "--seeds=2", "--together=2", "--name=whole")
    _, err = first.communicate(timeout=HANG_S)
    assert first.returncode == 0, err
    again = assay("resume", "whole-s0", "whole-s1")
    _, err = again.communicate(timeout=HANG_S)
    assert again.returncode == 1
    assert "all 6 steps are done" in err


def test_a_name_that_is_taken_is_refused_before_any_run_is_made(assay, tmp_path):
    (tmp_path / "runs" / "odd-s1").mkdir(parents=True)
    run = assay("train", "poem.txt", *SMALL, "--seeds=2", "--name=odd")
    _, err = run.communicate(timeout=HANG_S)
    assert run.returncode == 1
    assert "runs/odd-s1: a run of this name is there already" in err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["odd-s1"]
