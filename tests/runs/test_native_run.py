"""A run whose steps and evaluations the C++ kernels take is a run like any other."""

import pytest
import torch
from tiny_run import bits_of, config_of, finish, stopping_at

from assay.errors import RunError
from assay.runs.ensemble import train_ensemble
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.native_backend import multiplies_bf16


@pytest.fixture(autouse=True)
def _with_kernels(native):
    pass


def native_run(text, path, **changes):
    return Run.create(config_of(text, train__backend="native", **changes), path)


def test_it_says_so_and_ends_where_pytorch_does(tmp_path, text):
    """Eight steps of losses near 3.8: a rounding of 6e-8 stays far below 1e-4."""
    ours = native_run(text, tmp_path / "ours")
    theirs = Run.create(config_of(text), tmp_path / "theirs")
    for run in (ours, theirs):
        finish(run)
    assert ours.folder.read_manifest()["machine"]["backend"] == "native"
    assert theirs.folder.read_manifest()["machine"]["backend"] == "torch"
    found, expected = (list(read_rows(run.folder.path / "metrics.jsonl")) for run in (ours, theirs))
    assert len(found) == len(expected)
    for row, twin in zip(found, expected, strict=True):
        for name in ("loss_nats", "val_loss_nats", "val_bits_per_byte"):
            assert row.get(name) == pytest.approx(twin.get(name), abs=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("exact_rows", [None, 2])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, text, precision, exact_rows):
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    changes = {"train__precision": precision, "train__exact_rows": exact_rows}
    whole = native_run(text, tmp_path / "whole", **changes)
    finish(whole)
    broken = native_run(text, tmp_path / "broken", **changes)
    finish(broken, stop=stopping_at(4))
    finish(Run.open(tmp_path / "broken"))
    assert bits_of(Run.open(tmp_path / "broken")) == bits_of(whole)


def test_in_exact_mode_every_number_of_micro_batches_has_the_same_losses(tmp_path, text):
    losses = []
    for n in (1, 2):
        changes = {"train__micro_batches": n, "train__exact_rows": 2}
        run = native_run(text, tmp_path / str(n), **changes)
        losses.append([report.loss_nats for report in finish(run)])
    assert losses[0] == losses[1]


def test_it_does_not_go_on_with_pytorch_unasked(tmp_path, text, monkeypatch):
    run = native_run(text, tmp_path / "run")
    finish(run, stop=stopping_at(4))
    path = tmp_path / "run" / "checkpoints" / "step-000004" / "state.json"
    assert '"backend": "native"' in path.read_text()
    monkeypatch.setattr("assay.runs.run.describe_machine", _as_if_by_pytorch)
    with pytest.raises(RunError, match="backend: native so far, torch here"):
        finish(Run.open(tmp_path / "run"))


def _as_if_by_pytorch(plan):
    from assay.engine.device import describe_machine

    return describe_machine(plan) | {"backend": "torch"}


@pytest.mark.slow
def test_runs_in_company_have_the_bits_of_runs_alone(tmp_path, text):
    torch.set_num_threads(2)
    seeds = (3, 4, 5)
    alone = [native_run(text, tmp_path / f"alone-{n}", train__seed=n) for n in seeds]
    company = [native_run(text, tmp_path / f"company-{n}", train__seed=n) for n in seeds]
    for run in alone:
        finish(run)
    for _ in train_ensemble(company):
        pass
    for one, other in zip(alone, company, strict=True):
        assert bits_of(one) == bits_of(other)


def test_a_run_that_lost_its_company_goes_on_alone_to_the_same_bits(tmp_path, text):
    whole = native_run(text, tmp_path / "whole", train__seed=3)
    finish(whole)
    company = [native_run(text, tmp_path / f"company-{n}", train__seed=n) for n in (3, 4)]
    for _ in train_ensemble(company, stop=stopping_at(5)):
        pass
    one = Run.open(company[0].folder.path)
    finish(one)
    assert bits_of(one) == bits_of(whole)
