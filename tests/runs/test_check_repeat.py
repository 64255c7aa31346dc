"""`assay check resume` and `determinism`, whole, and with a fault put between their stages."""

import hashlib
import json
import os
import signal
import time

import pytest
from safetensors.torch import load_file, save_file
from tiny_run import config_of, finish, stopping_at

from assay.checks.bits import compare_runs
from assay.checks.repeat import check_determinism, check_resume
from assay.checks.scratch import (
    choose_steps,
    kill_scratch,
    machine_differences,
    new_scratch,
    step_seconds,
)
from assay.checks.worker import train_until
from assay.errors import ConfigError, RunError
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from patience import wait_until


@pytest.fixture
def run(tmp_path, text):
    run = Run.create(config_of(text, model__dropout=0.2), tmp_path / "run")
    finish(run)
    return run


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def altered(checkpoint, file, name):
    """Change one number of a checkpoint, its manifest too, so that it still verifies."""
    tensors = load_file(checkpoint / file)
    tensors[name].view(-1)[0] += 2.0**-6
    save_file(tensors, checkpoint / file)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    manifest[file]["sha256"] = hashlib.sha256((checkpoint / file).read_bytes()).hexdigest()
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.slow
def test_a_run_is_killed_and_resumed_beside_an_unbroken_one_and_left_as_it_was(tmp_path, run):
    before = contents(run.folder.path)
    found = {f.name: f for f in check_resume(run, tmp_path / "scratch", 3)}
    assert all(finding.fine for finding in found.values())
    assert found["killed"].facts["saved_step"] == 3
    assert 3 <= found["killed"].facts["last_step"] < 6
    assert found["resumed"].facts == {"from_step": 3}
    assert found["metrics"].facts["rows"] == 1 + 6 + 2  # a look, six steps, two evaluations
    one, other = (tmp_path / "scratch" / name for name in ("unbroken", "broken"))
    for name in ("metrics.jsonl", "checkpoints/step-000006/optim.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert [s["from_step"] for s in Run.open(other).folder.read_manifest()["stretches"]] == [0, 3]
    assert contents(run.folder.path) == before


@pytest.mark.parametrize(
    ("file", "name", "step"),
    [
        ("model.safetensors", "blocks.0.mixer.q_proj.weight", 4),
        ("optim.safetensors", "embed.weight/exp_avg", 5),  # the update of step 4 is another
    ],
)
def test_what_was_altered_between_kill_and_resume_is_found(tmp_path, run, file, name, step):
    scratch = [new_scratch(run, tmp_path / "scratch" / name, every=3) for name in ("one", "other")]
    one, other = (each.folder.path for each in scratch)
    train_until(one, 6)
    train_until(other, 3)
    altered(other / "checkpoints/step-000003", file, name)
    train_until(other, 6)
    found = {finding.name: finding for finding in compare_runs(one, other, 6)}
    assert not any(finding.fine for finding in found.values())
    assert found["metrics"].facts["step"] == step
    assert 0 < found["weights"].facts["tensor"]["largest_difference"] < 1


def test_a_scratch_run_takes_the_steps_that_the_run_took(tmp_path, run):
    """The schedule is that of all eight steps, though it stops after five."""
    scratch = new_scratch(run, tmp_path / "scratch" / "one", every=2)
    train_until(scratch.folder.path, 5)
    rows, theirs = (
        {(r["kind"], r["step"]): r for r in read_rows(each.folder.path / "metrics.jsonl")}
        for each in (scratch, run)
    )
    logged = [key for key in theirs if key[1] <= 5]
    assert len(logged) == 5  # a look, steps 1, 2 and 4, an evaluation
    assert all(rows[key] == theirs[key] for key in logged)
    assert {("train", step) for step in range(1, 6)} <= rows.keys()


@pytest.mark.slow
def test_a_repeated_run_is_compared_with_itself_and_with_what_was_recorded(tmp_path, run):
    metrics = run.folder.path / "metrics.jsonl"
    rows = list(read_rows(metrics))
    (eval_3,) = [r for r in rows if r["kind"] == "eval" and r["step"] == 3]
    eval_3["val_loss_nats"] += 2.0**-40
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {f.name: f for f in check_determinism(run, tmp_path / "scratch", 4)}
    assert [name for name, f in found.items() if not f.fine] == ["recorded"]
    recorded = found["recorded"].facts
    assert (recorded["step"], recorded["field"]) == (3, "val_loss_nats")


@pytest.mark.slow
def test_what_a_process_of_the_check_says_is_what_the_user_is_told(tmp_path, text, run):
    text.write_text(text.read_text() + "More.")
    scratch = new_scratch(run, tmp_path / "scratch" / "one", every=2)
    with pytest.raises(RunError, match=r"scratch/one: .* failed: .* the text and split changed"):
        kill_scratch(scratch, 2, 4, 0.1)


def test_a_worker_ends_when_its_parent_does(tmp_path, run, monkeypatch):
    scratch = new_scratch(run, tmp_path / "scratch" / "one", every=2)
    parents = iter([1, 1, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 2))
    train_until(scratch.folder.path, 8)
    assert (scratch.folder.path / "checkpoints/step-000002").is_dir()
    assert not (scratch.folder.path / "checkpoints/step-000006").exists()


@pytest.mark.usefixtures("forks")
def test_a_process_that_waits_to_be_killed_never_writes_its_last_step(tmp_path, run, monkeypatch):
    scratch = new_scratch(run, tmp_path / "scratch" / "one", every=2)
    waits, sleep = tmp_path / "waits", time.sleep
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(time, "sleep", lambda seconds: (waits.touch(), sleep(seconds)))
        train_until(scratch.folder.path, 4, hold=4)
        os._exit(0)
    metrics = scratch.folder.path / "metrics.jsonl"
    wait_until(lambda: waits.exists() or os.waitpid(child, os.WNOHANG) != (0, 0))
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert max(row["step"] for row in read_rows(metrics)) == 3


def test_the_number_of_steps_follows_from_the_runs_own_speed(tmp_path, text):
    run = Run.create(config_of(text, train__steps=1000), tmp_path / "run")
    finish(run, stop=stopping_at(1))
    timings = run.folder.path / "timings.jsonl"
    tokens = run.config.train.batch_size * run.config.seq_len
    for seconds, steps in ((4.0, 2), (0.4, 20), (0.001, 200)):
        timings.write_text(json.dumps({"step": 1, "tokens_per_s": tokens / seconds}) + "\n")
        assert step_seconds(run) == pytest.approx(seconds)
        assert choose_steps(run, None, passes=5, reach=2) == steps
    assert choose_steps(run, 500, passes=5, reach=2) == 500
    with pytest.raises(ConfigError, match="--steps: 501 found; expected at most 500"):
        choose_steps(run, 501, passes=5, reach=2)
    timings.unlink()
    assert step_seconds(run) is None


def test_another_machine_is_said_and_this_ones_way_is_taken(tmp_path, run):
    assert machine_differences(run) == []
    manifest = run.folder.read_manifest()
    manifest["machine"] |= {"device": "cuda", "device_name": "another", "precision": "bf16"}
    run.folder.write_json("manifest.json", manifest)
    told = "; ".join(machine_differences(run))
    assert "cuda" in told
    assert "another" in told
    scratch = new_scratch(run, tmp_path / "scratch" / "one", every=2)
    machine = scratch.folder.read_manifest()["machine"]
    assert (machine["device"], machine["precision"]) == ("cpu", "fp32")
    train_until(scratch.folder.path, 2)
