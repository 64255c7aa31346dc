import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from assay.config import RunConfig
from assay.engine import autotune as tuning
from assay.engine.autotune import Candidate, plan_from_manifest, tune
from assay.engine.device import describe_machine, resolve_plan
from assay.errors import ConfigError
from assay.experiments import estimate
from assay.native.build import Kernels
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.native_backend import unsupported_reason

LONG = {"steps": 10**9}
COMPILING_TRIED = Path(__file__).with_name("compiling_tried.py")


def config_of(model=None, **train):
    shape = {"vocab_size": 17, "max_seq_len": 16, "d_model": 16, "n_layers": 2}
    train = {"device": "cpu", **train}
    return decode(RunConfig, {"model": {**shape, **(model or {})}, "train": train})


def tuned(config, cache):
    return tune(config, resolve_plan(config.train), cache)


def kept_in(cache):
    return sorted((cache / "tuning").glob("*.json"))


@pytest.mark.parametrize(
    ("machine", "fields", "native"),
    [
        ("x86_64", {}, True),
        ("x86_64", {"precision": "fp32", "compile": "off"}, True),
        ("x86_64", {"attention": "fused"}, False),
        ("x86_64", {"backend": "torch"}, False),
        ("arm64", {}, False),
        ("arm64", {"backend": "native"}, True),
    ],
)
@pytest.mark.usefixtures("native")
def test_a_short_run_is_not_timed(tmp_path, monkeypatch, machine, fields, native):
    monkeypatch.setattr(tuning.platform, "machine", lambda: machine)
    config = config_of(steps=100, **fields)
    plan, trials = tuned(config, tmp_path)
    assert (plan, trials) == (dataclasses.replace(resolve_plan(config.train), native=native), [])
    assert kept_in(tmp_path) == []


def test_a_short_run_is_pytorchs_where_there_are_no_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr("assay.train.native_backend.kernels", lambda: Kernels(None, "no compiler"))
    config = config_of(steps=100)
    assert tuned(config, tmp_path) == (resolve_plan(config.train), [])


def test_a_long_run_times_every_kernel_that_may_be_chosen(tmp_path):
    plan, trials = tuned(config_of(**LONG, compile="off", precision="fp32"), tmp_path)
    ways = [(t.precision, t.attention, t.compiled, t.native) for t in trials]
    assert ways[:2] == [("fp32", "fused", False, False), ("fp32", "blocks", False, False)]
    there = unsupported_reason(config_of().model, plan.config, plan.device) is None
    assert ways[2:] == [("fp32", "fused", False, True)] * there
    assert all(trial.step_s > 0 for trial in trials)
    assert plan.attention in {"fused", "blocks"}
    assert not plan.autocast


@pytest.mark.slow
def test_long_steps_are_timed_once(tmp_path, monkeypatch):
    """Every step is long here; the first one of a way warms up."""
    taken = []

    def observed(*args, **options):
        for report in train(*args, **options):
            taken.append(report.step)
            yield report

    monkeypatch.setattr(tuning, "_ENOUGH_S", 0.0)
    monkeypatch.setattr(tuning, "train", observed)
    _, trials = tuned(config_of(**LONG, compile="off"), tmp_path)
    assert taken == [1, 2] * len(trials)


def test_kernels_that_were_not_there_when_ways_were_timed_are_timed_once_they_are(
    tmp_path, monkeypatch
):
    config = config_of(**LONG, precision="fp32", compile="off")
    if unsupported_reason(config.model, config.train, torch.device("cpu")) is not None:
        pytest.skip("no kernels here")
    with monkeypatch.context() as without:
        without.setattr("assay.train.native_backend.kernels", lambda: Kernels(None, "no compiler"))
        _, trials = tuned(config, tmp_path)
    assert not any(trial.native for trial in trials)
    _, trials = tuned(config, tmp_path)
    assert any(trial.native for trial in trials)


def test_the_kernels_are_taken_where_they_are_faster(tmp_path):
    config = config_of(**LONG, precision="fp32", compile="off")
    if unsupported_reason(config.model, config.train, torch.device("cpu")) is not None:
        pytest.skip("no kernels here")
    tuned(config, tmp_path)
    (path,) = kept_in(tmp_path)
    rows = json.loads(path.read_text())
    for row in rows:
        row["step_s"] = 1.0 if row["native"] else 9.0
    path.write_text(json.dumps(rows))
    plan, _ = tuned(config, tmp_path)
    assert plan.native
    assert describe_machine(plan)["backend"] == "native"
    assert plan_from_manifest(resolve_plan(config.train), describe_machine(plan)) == plan


@pytest.mark.parametrize(
    "fields", [{"attention": "fused"}, {"compile": "on"}, {"recompute": True}, {"backend": "torch"}]
)
def test_who_asks_for_a_way_of_pytorch_gets_it(tmp_path, fields):
    config = config_of(**LONG, precision="fp32", **fields)
    plan = resolve_plan(config.train)
    assert not any(tuning._native_ways(config, plan, [False]))


def test_kernels_that_cannot_train_a_model_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("assay.train.native_backend.multiplies_bf16", lambda: False)
    config = config_of(backend="native", precision="bf16")
    with pytest.raises(
        ConfigError, match=r"train\.backend: native found, .*: train\.precision=bf16"
    ):
        tuned(config, tmp_path)


def test_what_the_user_fixed_stays_fixed(tmp_path):
    fixed = {"precision": "bf16", "attention": "blocks", "compile": "off"}
    plan, trials = tuned(config_of(**LONG, **fixed), tmp_path)
    assert (plan.autocast, plan.attention, plan.compiled, trials) == (True, "blocks", False, [])


def test_the_same_run_takes_the_same_way_whatever_a_second_timing_would_say(tmp_path):
    """Timings are noise; the choice of the first is kept, so that a repeated run has its bits."""
    config = config_of(**LONG, compile="off", precision="fp32", backend="torch")
    tuned(config, tmp_path)
    (path,) = kept_in(tmp_path)
    rows = json.loads(path.read_text())
    for row in rows:
        row["step_s"] = 1.0 if row["attention"] == "blocks" else 9.0
    path.write_text(json.dumps(rows))
    plan, trials = tuned(config, tmp_path)
    assert plan.attention == "blocks"
    assert [trial.step_s for trial in trials] == [9.0, 1.0]


TRIAL = (
    '{"precision": "fp32", "attention": "fused", "compiled": false, "native": false, '
    '"step_s": 1.0, "failed": ""}'
)


@pytest.mark.parametrize(
    "broken",
    [
        "", "[1]", '[{"odd": 1}]', "{", "[]", "{}", "[" * 99_999, f"[{TRIAL}",
        "[" + TRIAL * 2 + "]",
        f"[{TRIAL.replace('1.0', '[]')}]", f"[{TRIAL.replace('fp32', 'fp8')}]",
        f"[{TRIAL.replace('fused', 'none such')}]", f"[{TRIAL.replace('false', '1')}]",
        f"[{TRIAL.replace('1.0', repr('x'))}]", "[" + ", ".join([TRIAL] * 999) + "]",
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_read_is_made_again(tmp_path, broken):
    config = config_of(**LONG, compile="off", precision="fp32", backend="torch")
    tuned(config, tmp_path)
    (path,) = kept_in(tmp_path)
    path.write_text(broken)
    _, trials = tuned(config, tmp_path)
    assert [trial.attention for trial in trials] == ["fused", "blocks"]
    assert json.loads(path.read_text())[1]["attention"] == "blocks"


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes")
def test_a_pipe_or_a_device_in_the_place_of_a_choice_is_not_waited_for(tmp_path):
    config = config_of(**LONG, compile="off", precision="fp32", backend="torch")
    tuned(config, tmp_path)
    (path,) = kept_in(tmp_path)
    for put in (os.mkfifo, lambda place: place.symlink_to("/dev/zero")):
        path.unlink()
        put(path)
        _, trials = tuned(config, tmp_path)
        assert [trial.attention for trial in trials] == ["fused", "blocks"]
        assert path.is_file()


def test_another_model_or_batch_is_timed_anew_and_another_seed_or_rate_is_not(tmp_path):
    base = {**LONG, "compile": "off", "precision": "fp32"}
    for config in (
        config_of(**base),
        config_of(**base, seed=5, optimizer={"kind": "muon", "lr": 0.1}),
    ):
        tuned(config, tmp_path)
    assert len(kept_in(tmp_path)) == 1
    tuned(config_of({"norm": "layer"}, **base), tmp_path)
    tuned(config_of(**base, batch_size=2), tmp_path)
    assert len(kept_in(tmp_path)) == 3


@pytest.mark.slow
def test_compiling_is_tried_where_the_run_is_long_enough_to_earn_it_back(tmp_path):
    """And a shorter run of the same shape keeps its own choice, whichever was timed first."""
    command = [sys.executable, str(COMPILING_TRIED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    short, long, again = json.loads(done.stdout)
    assert [trial["compiled"] for trial in short["trials"]] == [False]
    eager, compiled = long["trials"]
    assert (eager["compiled"], compiled["compiled"]) == (False, True)
    assert compiled["failed"] == ""
    assert long["compiled"] == (compiled["step_s"] < tuning._MARGIN * eager["step_s"])
    assert again == short


def test_a_gain_within_the_noise_leaves_the_simpler_way():
    ways = [
        Candidate("fp32", "fused", False, False, 1.0),
        Candidate("fp32", "blocks", False, False, 0.97),
    ]
    assert tuning._best(ways) is ways[0]
    ways.append(Candidate("fp32", "blocks", True, False, 0.94))
    assert tuning._best(ways) is ways[2]


def test_a_way_that_fails_is_a_row_and_is_not_taken():
    ways = [
        Candidate("fp32", "fused", False, False, None, "no memory"),
        Candidate("fp32", "blocks", False, False, 3.0),
        Candidate("fp32", "blocks", True, False, None, "no compiler"),
    ]
    assert tuning._best(ways) is ways[1]


def test_a_model_that_diverges_while_it_is_timed_costs_the_timing_alone(tmp_path):
    wild = {"optimizer": {"kind": "adamw", "lr": 1e30}, "schedule": "constant"}
    config = config_of({"norm": "none"}, **LONG, **wild, compile="off", precision="fp32")
    plan, trials = tuned(config, tmp_path)
    assert all(trial.step_s is None and "step 2" in trial.failed for trial in trials)
    assert plan.attention == "fused"


def test_a_run_that_goes_on_takes_the_way_it_began_with():
    plan = resolve_plan(decode(TrainConfig, {"device": "cpu"}))
    machine = {"precision": "bf16", "attention": "blocks", "compiled": True}
    began = plan_from_manifest(plan, machine)
    assert (began.autocast, began.attention, began.compiled) == (True, "blocks", True)
    fixed = decode(TrainConfig, {"device": "cpu", "precision": "fp32", "compile": "off"})
    began = plan_from_manifest(resolve_plan(fixed), machine)
    assert (began.autocast, began.attention, began.compiled) == (False, "blocks", False)


def test_the_timing_of_a_run_changes_nothing_of_it(tmp_path):
    """The generators stand where they stood: initial weights and dropout do not feel a timing."""
    before = torch.get_rng_state()
    tuned(config_of(**LONG, compile="off", precision="fp32"), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_field_of_a_trial_is_written(tmp_path):
    tuned(config_of(**LONG, compile="off", precision="fp32"), tmp_path)
    (path,) = kept_in(tmp_path)
    fields = {field.name for field in dataclasses.fields(Candidate)}
    assert all(row.keys() == fields for row in json.loads(path.read_text()))


@pytest.mark.usefixtures("native")
def test_a_study_is_estimated_by_what_its_short_runs_take(monkeypatch):
    taken = []

    def observed(model, batch_at, optimizers, plan):
        taken.append(plan)
        return train(model, batch_at, optimizers, plan)

    monkeypatch.setattr(estimate, "train", observed)
    config = config_of(steps=100)
    assert estimate.run_seconds(config, val_tokens=64) > 0
    (plan,) = taken
    assert plan.native == tuning.default_plan(config, resolve_plan(config.train)).native
    assert plan.native == (tuning.platform.machine() in ("x86_64", "AMD64"))
