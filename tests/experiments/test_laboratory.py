"""Tasks are done once, found again, and nobody's edit passes for a result."""

import json
import math
import shutil

import pytest
from small_study import TEXT
from tiny_claim import claim_on, panel, training

from assay.errors import RunError
from assay.experiments.evidence import Evidence, Record, unsealed
from assay.experiments.keys import Keys
from assay.experiments.laboratory import Laboratory
from assay.experiments.records import finite, read_record, write_record
from assay.experiments.tasks import TASKS, read_task
from assay.schema import override
from caches import cache_in


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_CACHE", cache_in(tmp_path))
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def record(task, **values):
    return Record(
        key="0" * 32, task=task.model_dump(mode="json"), state="done", values=values,
        code_sha256="1" * 64, made={},
    )  # fmt: skip


def strip(record):
    return {name: value for name, value in record.values.items() if name != "train_s"}


@pytest.mark.slow
def test_a_claim_is_gathered_round_by_round_and_only_once(tmp_path, text):
    told = []
    laboratory = Laboratory(tmp_path / "lab", workers=2, told=told.append)
    claim = claim_on(text)
    evidence = laboratory.gather([claim], "quick")
    assert len(evidence) == 5
    assert claim.judge("quick", evidence).verdict == "confirmed"
    again = Laboratory(tmp_path / "lab", told=lambda jobs: pytest.fail("nothing is to be done"))
    assert {r.key for r in again.gather([claim], "quick")} == {r.key for r in evidence}
    assert {job.kind for jobs in told for job in jobs} == {"run", "task"}
    shutil.rmtree(next(path for path in (tmp_path / "lab" / "cells").iterdir() if path.is_dir()))
    next((tmp_path / "lab" / "records").iterdir()).unlink()
    once_more = laboratory.gather([claim], "quick")
    assert {r.key: strip(r) for r in once_more} == {r.key: strip(r) for r in evidence}


@pytest.mark.slow
def test_a_result_of_a_run_edited_since_it_ended_is_refused(tmp_path, text):
    task = training(text, 0, 8)
    laboratory = Laboratory(tmp_path / "lab")
    laboratory.do([task])
    path = tmp_path / "lab" / "cells" / laboratory.key(task) / "manifest.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "diverged"'))
    with pytest.raises(RunError, match=r'"diverged".* found, .*"finished".* when the run ended'):
        laboratory.evidence([task])


@pytest.mark.slow
def test_a_run_that_diverges_is_a_record_and_one_that_fails_an_error(tmp_path, text):
    wild = {"run.train.optimizer": {"kind": "adamw", "lr": 1e30}, "run.model.norm": "none"}
    task = override(training(text, 0, 8), {**wild, "run.train.schedule": "constant"})
    laboratory = Laboratory(tmp_path / "lab")
    laboratory.do([task])
    found = laboratory.evidence([task])[task]
    assert found.state == "diverged"
    assert "step" in found.error
    assert math.isnan(found.value("val_loss_nats"))
    bad = override(training(text, 0, 8), {"run.model.vocab_size": 3})
    with pytest.raises(RunError, match=r"1 of 1 tasks failed; .*vocab_size: 3 found"):
        laboratory.do([bad])


def test_an_edited_record_is_refused(tmp_path):
    write_record(record(panel(), loss=1.0), tmp_path)
    (path,) = (tmp_path / "records").iterdir()
    assert read_record(path).value("loss") == 1.0
    path.write_text(path.read_text().replace("1.0", "2.0"))
    with pytest.raises(RunError, match="does not have the SHA-256 it was sealed with"):
        read_record(path)


def test_a_record_nested_deeper_than_can_be_sealed_is_refused():
    """A reader of JSON may go deeper than its writer."""
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="nested without end"):
        unsealed({"record": {"values": nested}, "sha256": "0" * 64})


def test_numbers_that_are_not_finite_are_written_as_none_and_read_as_nan():
    assert finite({"a": [1.0, math.inf, {"b": math.nan}], "c": "d", "e": True}) == {
        "a": [1.0, None, {"b": None}], "c": "d", "e": True,
    }  # fmt: skip
    found = record(panel(), deep={"a": None, "b": 2})
    assert math.isnan(found.value("deep.a"))
    assert math.isnan(found.value("no.such"))
    assert found.value("deep.b") == 2.0


def test_evidence_is_found_by_the_task_itself_and_the_later_record_wins():
    known = Evidence([record(panel(), loss=1.0)])
    same = read_task(panel().model_dump_json())
    assert same in known
    assert override(panel(), {"draws": 3}) not in known
    assert (known | Evidence([record(panel(), loss=2.0)]))[same].value("loss") == 2.0


def test_a_name_hangs_on_task_text_and_code(text, monkeypatch):
    task, other = training(text, 0, 8), training(text, 1, 8)
    before = Keys().of_task(task)
    assert before == Keys().of_task(read_task(task.model_dump_json()))
    assert before != Keys().of_task(other)
    text.write_text(TEXT + "thêm\n", encoding="utf-8")
    assert Keys().of_task(task) != before
    monkeypatch.setattr("assay.experiments.keys.code_of", lambda task: "other")
    assert Keys().of_task(panel()) != "" != before


def test_every_kind_of_task_is_named_once_and_read_back_as_itself():
    kinds = [task.model_fields["kind"].default for task in TASKS]
    assert len(set(kinds)) == len(kinds)
    assert read_task(json.dumps(panel().model_dump(mode="json"))) == panel()
