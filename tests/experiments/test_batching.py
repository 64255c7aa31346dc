"""Trainings that a worker takes together: which, how many, and what a stop or a fault leaves."""

import json
import math

import pytest
from small_study import FIELDS, TEXT, study_of

from assay.config import RunConfig
from assay.experiments.batching import Batcher
from assay.experiments.cell import cell_key
from assay.experiments.design import Arm
from assay.experiments.jobs import Jobs
from assay.experiments.laboratory import Laboratory
from assay.experiments.paper.verify_study import read_arms, verify_study
from assay.experiments.work import run_all, run_job, run_jobs
from assay.runs.run import Run
from assay.schema import override
from caches import cache_in


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def added(lab, name="lab", **changes):
    """A table of jobs, and the key of one more training in it."""
    jobs = Jobs(lab / name)
    fields = {field.replace("__", "."): value for field, value in changes.items()}
    config = override(RunConfig(), {**FIELDS, "data.text": str(lab / "text.txt"), **fields})
    key = cell_key(config, "data", "code")
    jobs.add(key, f"seed {config.train.seed}", config.model_dump_json())
    return jobs, key


def seeds(lab, *numbers, **changes):
    return [added(lab, train__seed=seed, **changes)[1] for seed in numbers]


def manifest(jobs, key):
    return Run.open(jobs.cells / key).folder.read_manifest()


def states(jobs, keys):
    return [job.state for job in jobs.all(keys)]


def loss(jobs, key):
    return manifest(jobs, key)["result"]["val_loss_nats"]


def companions(lab, keys, together):
    """The keys that one process would train at once, the first of `keys` first."""
    jobs = Jobs(lab / "lab")
    with jobs.claimed(keys) as job, Batcher(together).of(jobs, job, keys) as others:
        return [job.key, *(other.key for other in others)]


def take(jobs, keys, together, stop=lambda: False):
    """Do what a worker takes at once."""
    with jobs.claimed(keys) as job, Batcher(together).of(jobs, job, keys) as others:
        run_jobs(jobs, [job, *others], stop=stop)


def after(n_steps):
    """An order to stop that comes after that many steps: it is asked after each."""
    calls = iter(range(n_steps - 1))
    return lambda: next(calls, None) is None


@pytest.mark.slow
def test_workers_train_what_is_alike_together_to_the_losses_it_has_alone(lab):
    alike = [*seeds(lab, 0, 1, 2), added(lab, train__optimizer__lr=0.002)[1]]
    wide = added(lab, model__d_model=32)[1]
    jobs, keys = Jobs(lab / "lab"), [alike[0], wide, *alike[1:]]
    run_all(lab / "lab", keys, workers=1, together=3)
    assert states(jobs, keys) == ["done"] * 5
    replicas = [manifest(jobs, key)["machine"]["replicas"] for key in [*alike, wide]]
    assert replicas == [3, 3, 3, 1, 1]
    for key in keys:
        alone = Run.create(RunConfig.model_validate_json(jobs.content(key)), lab / f"alone-{key}")
        *_, _ = alone.train()
        expected = alone.folder.read_manifest()["result"]["val_loss_nats"]
        # float32 sums in another order, carried through 12 steps
        assert loss(jobs, key) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__norm": "layer"},
        {"train__batch_size": 2},
        {"train__steps": 13},
        {"train__optimizer": {"kind": "adamw"}},
        {"train__schedule": "constant"},
        {"data__tokenizer": "byte"},
    ],
    ids=str,
)
def test_what_differs_in_more_than_seed_weights_and_rate_goes_apart(lab, changes):
    first, second = seeds(lab, 0, 1)
    _, other = added(lab, **changes)
    keys = [first, other, second]
    assert companions(lab, keys, together=3) == [first, second]
    assert companions(lab, keys, together=1) == [first]
    weights = added(lab, model__init="xavier")[1]
    assert companions(lab, [*keys, weights], together=3) == [first, second, weights]


def test_exact_rows_have_no_company(lab):
    keys = seeds(lab, 0, 1, train__exact_rows=1)
    assert companions(lab, keys, together=2) == keys[:1]


def test_a_cpu_takes_one_by_one_and_a_gpu_what_is_timed_as_fastest(lab, monkeypatch):
    keys = seeds(lab, *range(5))
    assert companions(lab, keys, together=None) == keys[:1]
    monkeypatch.setattr(Batcher, "_may_be_several", lambda self, config: True)  # as on a GPU
    found = companions(lab, keys, together=None)
    assert found == keys[: len(found)]
    company = Batcher()
    jobs = Jobs(lab / "lab")
    for _ in range(2):  # timed once
        with jobs.claimed(keys) as job, company.of(jobs, job, keys) as others:
            (size,) = company._sizes.values()
            assert len(others) == min(size, 5) - 1
        company._sizes = dict.fromkeys(company._sizes, 3)


def test_what_another_process_holds_is_not_taken(lab):
    keys = seeds(lab, 0, 1, 2)
    jobs = Jobs(lab / "lab")
    with jobs.claimed(keys[1:]) as held:
        assert held.key == keys[1]
        assert companions(lab, keys, together=3) == [keys[0], keys[2]]
    assert companions(lab, keys, together=3) == keys


@pytest.mark.slow
def test_one_that_diverges_in_company_is_a_result_and_costs_no_other(lab):
    plain = {"model__norm": "none", "train__schedule": "constant"}
    good, *_ = seeds(lab, 0, **plain)
    _, wild = added(lab, train__optimizer__lr=1e30, **plain)
    jobs = Jobs(lab / "lab")
    take(jobs, [good, wild], together=2)
    assert states(jobs, [good, wild]) == ["done", "diverged"]
    assert jobs.all([wild])[0].error.startswith("step 2: loss")
    assert math.isfinite(loss(jobs, good))


@pytest.mark.slow
def test_a_stop_saves_all_and_the_same_company_goes_on_to_the_same_bits(lab):
    keys = seeds(lab, 0, 1)
    jobs = Jobs(lab / "lab")
    take(jobs, keys, 2, stop=after(5))
    assert states(jobs, keys) == ["running", "running"]
    assert [manifest(jobs, key)["status"] for key in keys] == ["interrupted"] * 2
    take(jobs, keys, 2)
    whole, _ = added(lab, "whole")
    again = [added(lab, "whole", train__seed=seed)[1] for seed in (0, 1)]
    take(whole, again, 2)
    for key in keys:
        assert [s["from_step"] for s in manifest(jobs, key)["stretches"]] == [0, 5]
        name = f"cells/{key}/checkpoints/step-000012/model.safetensors"
        assert (lab / "lab" / name).read_bytes() == (lab / "whole" / name).read_bytes()


@pytest.mark.slow
def test_one_that_lost_its_company_begins_anew_and_one_begun_alone_stays_alone(lab):
    began, lost, fresh = keys = seeds(lab, 0, 1, 2)
    jobs = Jobs(lab / "lab")
    take(jobs, [lost, fresh], 2, stop=after(5))
    with jobs.claimed([lost]) as job:
        run_job(jobs, job)
    assert manifest(jobs, lost)["machine"]["replicas"] == 1
    assert [s["from_step"] for s in manifest(jobs, lost)["stretches"]] == [0]
    with jobs.claimed([began]) as job:
        run_job(jobs, job, stop=after(5))
    assert companions(lab, keys, together=3) == [began]
    take(jobs, keys, together=3)
    assert [s["from_step"] for s in manifest(jobs, began)["stretches"]] == [0, 5]
    assert states(jobs, keys) == ["done", "done", "running"]


@pytest.mark.slow
def test_what_fails_in_company_is_tried_alone_and_keeps_the_steps_it_has(lab):
    bad, good = keys = seeds(lab, 0, 1)
    jobs = Jobs(lab / "lab")
    with jobs.claimed(keys) as one, jobs.claimed([good]) as two:
        run = Run.create(RunConfig.model_validate_json(jobs.content(bad)), jobs.cells / bad)
        (run.folder.path / "metrics.jsonl").mkdir()  # in the way of its first row
        run_jobs(jobs, [one, two])
    assert states(jobs, keys) == ["failed", "done"]
    assert manifest(jobs, good)["machine"]["replicas"] == 1
    assert "Is a directory" in jobs.all([bad])[0].error

    begun = seeds(lab, 2, 3)
    take(jobs, begun, 2, stop=after(5))
    (jobs.cells / begun[0] / "samples").write_text("no folder")
    take(jobs, begun, 2)
    assert "failed" in states(jobs, begun)
    assert [manifest(jobs, key)["stretches"][0]["to_step"] for key in begun] == [5, 5]


@pytest.mark.slow
def test_verify_says_that_a_number_was_made_in_company(base, tmp_path):
    stacked = override(base, {"train.backend": "torch"})
    study = study_of(stacked, tmp_path, [Arm("rms", {}), Arm("layer", {"model.norm": "layer"})])
    study.enlist(Jobs(study.lab))
    run_all(study.lab, study.cells(), workers=1, together=3)
    assert [each["machine"]["replicas"] for each in _manifests(study)] == [3] * 6
    found = verify_study(read_arms(study), Laboratory(tmp_path / "a"))
    answers = {each.answer: each.why for each in found}
    assert answers.pop("within the interval") == "replicas: 3 then, 1 now"
    assert set(answers) <= {"reproduced bit for bit"}  # rounding need not show in every number
    again = verify_study(read_arms(study), Laboratory(tmp_path / "b", together=3))
    assert {each.answer for each in again} == {"reproduced bit for bit"}


def _manifests(study):
    folder = Jobs(study.lab).cells
    return [json.loads((folder / key / "manifest.json").read_text()) for key in study.cells()]
