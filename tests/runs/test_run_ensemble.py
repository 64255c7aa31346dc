"""Runs trained together against the same runs trained one by one."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import bits_of, config_of, finish, stopping_at

from assay.errors import ConfigError, DivergedError, RunError
from assay.runs.ensemble import train_ensemble
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints
from assay.train.native_backend import multiplies_bf16

NEAR = 1e-4  # float32: roundings of 6e-8 that eight steps at rates under 0.01 may stretch


def ensemble(folder, text, n=3, **changes):
    """Runs that differ in seed and rate."""
    return [
        Run.create(
            config_of(text, train__seed=seed, train__optimizer__lr=0.002 * (seed + 1), **changes),
            folder / f"run-{seed}",
        )
        for seed in range(n)
    ]


def go(runs, **options):
    return list(train_ensemble(runs, **options))


def weights_of(run):
    return load_file(checkpoints(run.folder.checkpoints)[0] / "model.safetensors")


def status_of(run):
    return run.folder.read_manifest()["status"]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"model__dropout": 0.2, "train__micro_batches": 2}])
def test_each_run_of_an_ensemble_is_the_run_by_itself(tmp_path, text, changes):
    together = ensemble(tmp_path / "together", text, **changes)
    alone = ensemble(tmp_path / "alone", text, **changes)
    rounds = go(together)
    for run in alone:
        list(run.train())
    assert [[report.step for report in r] for r in rounds] == [[step] * 3 for step in range(9)]
    for one, other in zip(together, alone, strict=True):
        for name, value in weights_of(one).items():
            torch.testing.assert_close(value, weights_of(other)[name], rtol=NEAR, atol=NEAR)
        rows, expected = (list(read_rows(r.folder.path / "metrics.jsonl")) for r in (one, other))
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        for row, twin in zip(rows, expected, strict=True):
            assert row.pop("kind") == twin.pop("kind")
            assert row == pytest.approx(twin, rel=NEAR, abs=NEAR)
        results = [r.folder.read_manifest()["result"] for r in (one, other)]
        assert results[0] == pytest.approx(
            results[1] | {"train_s": results[0]["train_s"]}, rel=NEAR
        )
        files = [sorted(p.name for p in r.folder.path.rglob("*")) for r in (one, other)]
        assert files[0] == files[1]


def test_the_manifest_says_how_many_ran_together(tmp_path, text):
    runs = ensemble(tmp_path, text)
    go(runs)
    for run in runs:
        manifest = run.folder.read_manifest()
        assert (manifest["status"], manifest["machine"]["replicas"]) == ("finished", 3)
        assert manifest["stretches"][0]["machine"]["replicas"] == 3


@pytest.mark.slow
def test_an_interrupted_ensemble_goes_on_to_the_same_bits(tmp_path, text):
    whole = ensemble(tmp_path / "whole", text, model__dropout=0.2)
    broken = ensemble(tmp_path / "broken", text, model__dropout=0.2)
    go(whole)
    rounds = go(broken, stop=stopping_at(4))
    assert len(rounds) == 5  # the look and four steps
    assert {status_of(run) for run in broken} == {"interrupted"}
    broken = [Run.open(run.folder.path) for run in broken]
    go(broken)
    for one, other in zip(broken, whole, strict=True):
        assert bits_of(one) == bits_of(other)


def test_an_ensemble_that_is_left_half_way_frees_its_runs(tmp_path, text):
    runs = ensemble(tmp_path, text)
    steps = train_ensemble(runs)
    for _ in range(3):
        next(steps)
    with pytest.raises(RunError, match="another process is training"):
        next(runs[1].train())
    steps.close()
    assert {status_of(run) for run in runs} == {"interrupted"}
    go([Run.open(run.folder.path) for run in runs])
    assert {status_of(Run.open(run.folder.path)) for run in runs} == {"finished"}


@pytest.mark.parametrize("how", ["torch", "native fp32", "native bf16"])
def test_a_run_that_diverges_does_so_alone(tmp_path, text, how):
    """With 21 characters: no multiple of what vectors or tiles of bfloat16 read at once."""
    text.write_text(text.read_text(encoding="utf-8") + "§", encoding="utf-8")
    backend, _, precision = how.partition(" ")
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    same = {
        "model__norm": "none",
        "model__d_model": 40,
        "train__schedule": "constant",
        "train__backend": backend,
        "train__precision": precision or "fp32",
    }
    runs = ensemble(tmp_path, text, **same)
    wild = config_of(text, train__optimizer={"kind": "adamw", "lr": 1e30}, **same)
    runs.insert(1, Run.create(wild, tmp_path / "wild"))
    rounds = go(runs)
    told = [r[1] for r in rounds]
    assert isinstance(told[2], DivergedError)
    assert told[3:] == [None] * 6
    assert "step 2: loss" in str(told[2])
    assert "the cause is the model or its data" in str(told[2])
    assert [status_of(run) for run in runs] == ["finished", "diverged", "finished", "finished"]
    assert runs[1].folder.read_manifest()["error"] == str(told[2])
    assert [p.name for p in checkpoints(runs[1].folder.checkpoints)] == ["step-000001"]


def test_a_run_of_an_ensemble_goes_on_alone_only_when_told_to(tmp_path, text):
    runs = ensemble(tmp_path, text)
    go(runs, stop=stopping_at(4))
    alone = Run.open(runs[0].folder.path)
    with pytest.raises(RunError, match="stacked with other runs: True so far, False"):
        finish(alone)
    finish(alone, anyway=True)
    assert status_of(alone) == "finished"
    changes = json.loads((alone.folder.path / "manifest.json").read_text())["stretches"][-1]
    assert "stacked with other runs" in changes["changes"][0]


def test_runs_that_do_not_fit_together_are_refused(tmp_path, text):
    runs = ensemble(tmp_path, text, n=2)
    runs.append(Run.create(config_of(text, model__n_layers=2), tmp_path / "deep"))
    with pytest.raises(ConfigError, match=r"replica 2: model\.n_layers = 2 found; expected 1"):
        go(runs)
    with pytest.raises(ConfigError, match="1 runs found; expected at least 2"):
        go(runs[:1])
    finish(runs[0])  # nothing is left locked


def test_a_run_with_fewer_steps_is_finished_while_the_others_go_on(tmp_path, text):
    short = Run.create(config_of(text, train__steps=3), tmp_path / "short")
    long = Run.create(config_of(text, train__seed=1), tmp_path / "long")
    seen = [
        (status_of(short), status_of(long), r[0] is not None) for r in train_ensemble([short, long])
    ]
    assert seen == [("running", "running", True)] * 3 + [("finished", "running", True)] + [
        ("finished", "running", False)
    ] * 4 + [("finished", "finished", False)]
