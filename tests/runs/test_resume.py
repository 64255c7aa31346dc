import json
import random
import signal

import pytest
from allpairspy import AllPairs
from tiny_run import (
    bits_of,
    config_of,
    finish,
    in_child,
    stopping_at,
    train_and_die,
    train_and_die_at,
)

from assay.errors import AssayError, RunError
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints
from assay.train.optim import OPTIMIZERS
from assay.train.schedule import SCHEDULES

DIMENSIONS = {
    "train__schedule": [cls().kind for cls in SCHEDULES],
    "train__optimizer": [cls().kind for cls in OPTIMIZERS],
    "model__dropout": [0.0, 0.2],
    "train__micro_batches": [1, 2],
    "model__tie_embeddings": [True, False],
    "train__batch_size": [4, 24],  # one pass over the text takes 14 steps, or a little over two
}
CONFIGS = [dict(zip(DIMENSIONS, row, strict=True)) for row in AllPairs(list(DIMENSIONS.values()))]


def straight(config, path):
    run = Run.create(config, path)
    finish(run)
    return run


@pytest.mark.parametrize(
    "changes", CONFIGS, ids=lambda changes: "-".join(map(str, changes.values()))
)
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, text, changes):
    """Stopped after a step at which no checkpoint was due."""
    config = config_of(text, **changes)
    whole = straight(config, tmp_path / "whole")
    broken = Run.create(config, tmp_path / "broken")
    finish(broken, stop=stopping_at(4))
    assert broken.folder.read_manifest()["status"] == "interrupted"
    broken = Run.open(tmp_path / "broken")
    finish(broken)
    assert bits_of(broken) == bits_of(whole)


@pytest.mark.slow
def test_a_run_interrupted_after_every_step_goes_on_to_the_same_bits(tmp_path, text):
    config = config_of(text, model__dropout=0.2)
    whole = straight(config, tmp_path / "whole")
    broken = Run.create(config, tmp_path / "broken")
    while broken.folder.read_manifest()["status"] != "finished":
        finish(broken, stop=lambda: True)
    assert bits_of(broken) == bits_of(whole)
    stretches = broken.folder.read_manifest()["stretches"]
    assert [(s["from_step"], s["to_step"]) for s in stretches] == [(n, n + 1) for n in range(8)]


def test_the_text_is_read_more_than_twice_in_the_runs_above(tmp_path, text):
    """Otherwise none of them would cross the end of an epoch."""
    run = Run.create(config_of(text), tmp_path / "run")
    tokens = run.folder.read_manifest()["data"]["train"]["tokens"]
    assert tokens > 8 * 4 * 16
    assert 2 * tokens < 8 * 24 * 16


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("step", [0, 2, 3, 5, 8])
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_bits(tmp_path, text, step):
    config = config_of(text, model__dropout=0.1)
    whole = straight(config, tmp_path / "whole")
    Run.create(config, tmp_path / "killed")
    print(f"killed after step {step}")
    assert in_child(lambda: train_and_die(tmp_path / "killed", step)) == -signal.SIGKILL
    run = Run.open(tmp_path / "killed")
    assert run.folder.read_manifest()["status"] == "running"
    steps = [report.step for report in finish(run)]
    saved = step if step == 8 else step // 3 * 3
    assert steps == list(range(saved + 1 if saved else 0, 9))
    assert bits_of(run) == bits_of(whole)
    assert run.folder.read_manifest()["status"] == "finished"


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_run_killed_at_any_file_operation_goes_on_to_the_same_bits(tmp_path, text):
    """Six at random of those that a session makes in its folder."""
    config = config_of(text, train__checkpoint_every=2)
    whole = Run.create(config, tmp_path / "whole")
    assert in_child(lambda: train_and_die_at(whole.folder.path)) == 0
    operations = int((whole.folder.path / "operations").read_text())
    for point in random.SystemRandom().sample(range(1, operations), 6):
        print(f"killed at file operation {point} of {operations}")
        killed = Run.create(config, tmp_path / f"killed-{point}")
        assert in_child(lambda: train_and_die_at(killed.folder.path, point)) == -signal.SIGKILL  # noqa: B023
        if killed.folder.read_manifest()["status"] != "finished":  # but for its picture
            finish(killed)
        assert bits_of(killed) == bits_of(whole)


def test_rows_after_the_restored_step_are_superseded_and_a_torn_line_is_dropped(tmp_path, text):
    config = config_of(text)
    whole = straight(config, tmp_path / "whole")
    run = Run.create(config, tmp_path / "run")
    finish(run, stop=stopping_at(3))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 4, "loss_nats": 99.0}) + "\n")
        file.write('{"kind": "train", "st')
    finish(run)
    rows = list(read_rows(tmp_path / "run" / "metrics.jsonl"))
    assert rows == list(read_rows(tmp_path / "whole" / "metrics.jsonl"))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 4, 6, 8]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [3, 6, 8]
    assert [row["step"] for row in rows if row["kind"] == "panel"] == [0]
    assert bits_of(run) == bits_of(whole)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_and_is_noted(tmp_path, text):
    config = config_of(text)
    whole = straight(config, tmp_path / "whole")
    run = Run.create(config, tmp_path / "run")
    finish(run, stop=stopping_at(6))
    weights = tmp_path / "run" / "checkpoints" / "step-000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    reports = finish(run)
    assert reports[0].step == 4
    assert "step-000006.bad" in "".join(run.folder.read_manifest()["notes"])
    assert bits_of(run) == bits_of(whole)


def test_a_repeated_run_has_the_same_metrics_to_the_byte(tmp_path, text):
    config = config_of(text, model__dropout=0.2, train__optimizer="muon")
    assert bits_of(straight(config, tmp_path / "a")) == bits_of(straight(config, tmp_path / "b"))


def test_another_seed_is_another_run(tmp_path, text):
    one = straight(config_of(text), tmp_path / "one")
    other = straight(config_of(text, train__seed=1), tmp_path / "other")
    assert bits_of(one)["metrics.jsonl"] != bits_of(other)["metrics.jsonl"]
    assert bits_of(one)["weights"] != bits_of(other)["weights"]


def test_a_run_without_checkpoints_on_the_way_keeps_its_last_step_alone(tmp_path, text):
    run = straight(config_of(text, train__checkpoint_every=0), tmp_path / "run")
    assert [path.name for path in checkpoints(run.folder.checkpoints)] == ["step-000008"]


def test_a_config_edited_since_is_refused_with_both_hashes(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    finish(run, stop=stopping_at(4))
    path = tmp_path / "run/config.json"
    path.write_text(path.read_text().replace('"adamw"', '"muon"'))
    path.write_text(path.read_text().replace('"eps": 1e-08,\n', '"eps": 1e-07,\n'))
    with pytest.raises(RunError, match="the config was edited"):
        finish(Run.open(tmp_path / "run"))


def test_a_tokenizer_that_is_gone_stops_a_resume_before_it_trains(tmp_path, text):
    run = Run.create(config_of(text), tmp_path / "run")
    finish(run, stop=stopping_at(4))
    for path in (tmp_path / "run/tokenizer").iterdir():
        path.unlink()
    with pytest.raises(AssayError, match="tokenizer"):
        finish(Run.open(tmp_path / "run"))
    assert checkpoints(run.folder.checkpoints)[0].name == "step-000004"


def test_metrics_that_are_gone_are_noted(tmp_path, text):
    finish(Run.create(config_of(text), tmp_path / "run"), stop=stopping_at(4))
    (tmp_path / "run/metrics.jsonl").unlink()
    run = Run.open(tmp_path / "run")
    finish(run)
    assert any("metrics.jsonl: its rows" in note for note in run.folder.read_manifest()["notes"])
