import json
import math

import pytest

from assay.config import RunConfig
from assay.errors import ConfigError, RunError
from assay.experiments import report
from assay.experiments.design import Arm, Design, grid
from assay.experiments.jobs import Jobs
from assay.experiments.study import Study
from assay.experiments.work import run_job
from assay.runs.metrics import read_rows
from assay.schema import override

TEXT = "\n".join(f"{n} và {n + 1} là {2 * n + 1}." for n in range(60)) + "\n"


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("assay.engine.device._TIMED_S", 1e-9)
    monkeypatch.setattr("assay.runs.run.draw_curve", lambda *a, **k: None)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    fields = {
        "model.max_seq_len": 16,
        "model.d_model": 16,
        "model.n_layers": 1,
        "data.text": str(tmp_path / "text.txt"),
        "data.tokenizer": "char",
        "train.steps": 12,
        "train.batch_size": 4,
        "train.device": "cpu",
        "eval.final_max_tokens": 64,
    }
    return override(RunConfig(), fields)


def finished(study):
    """Run every cell of a study in this process."""
    jobs = Jobs(study.lab)
    study.enlist(jobs)
    for _ in study.cells():
        with jobs.claimed(study.cells()) as job:
            if job is not None:
                run_job(jobs, job)
    return study


def study_of(base, tmp_path, arms, *, name="study", seeds=(0, 1, 2), **options):
    design = Design(base, arms, seeds)
    return Study.create(tmp_path / "lab", name, design, metric="val_loss_nats", **options)


def test_an_arm_that_trains_less_is_found_worse_and_the_report_says_so(base, tmp_path):
    arms = [Arm("long", {"train.steps": 12}), Arm("short", {"train.steps": 1})]
    study = finished(study_of(base, tmp_path, arms))
    (found,) = study.comparisons()
    assert found.word == "higher"
    page = report.markdown(study)
    assert found.sentence in page
    assert "| short |" in page
    assert "(x0.0833)" in page  # a twelfth of the FLOPs: better would not be silently bigger
    rows = report.runs_csv(study).splitlines()
    assert len(rows) == 1 + 6
    assert report.comparisons_csv(study).splitlines()[1].startswith("short,3,")
    assert report.latex(study).count(r"\\") == 3


def test_runs_of_one_seed_start_alike_and_read_alike(base, tmp_path):
    """The first loss of a run depends on weights and data alone; MLPs differ after one step."""
    arms = [Arm("a", {"train.optimizer.lr": 1e-3}), Arm("b", {"train.optimizer.lr": 4e-3})]
    study = finished(study_of(base, tmp_path, arms))
    for seed in ("0", "1", "2"):
        first = []
        for arm in ("a", "b"):
            folder = study.lab / "cells" / study.record.keys[arm][seed]
            rows = list(read_rows(folder / "metrics.jsonl"))
            first.append([row["loss_nats"] for row in rows if row["kind"] == "train"][:2])
        assert first[0][0] == first[1][0]
        assert first[0][1] != first[1][1]


def test_a_cell_that_two_studies_need_is_run_once(base, tmp_path):
    norms = grid({"model.norm": ["rms", "layer"]})
    one = finished(study_of(base, tmp_path, norms))
    other = study_of(base, tmp_path, [norms[0], Arm("none", {"model.norm": "none"})], name="other")
    jobs = Jobs(other.lab)
    other.enlist(jobs)
    assert [job.state for job in jobs.all(other.cells())].count("done") == 3
    assert set(one.cells()) & set(other.cells())


def test_a_study_is_opened_as_it_was_made_and_never_written_over(base, tmp_path):
    norms = grid({"model.norm": ["rms", "layer"]})
    made = study_of(base, tmp_path, norms, delta=0.1)
    again = Study.open(tmp_path / "lab", "study")
    assert again.record == made.record
    assert again.design.arms == made.design.arms
    assert study_of(base, tmp_path, norms, delta=0.1).record == made.record
    with pytest.raises(RunError, match="another study of this name is there"):
        study_of(base, tmp_path, norms, delta=0.2)
    with pytest.raises(RunError, match=r"no study of this name found.*studies there: study"):
        Study.open(tmp_path / "lab", "stduy")
    (made.folder / "study.json").write_text("{}")
    with pytest.raises(RunError, match=r"study\.json: unreadable"):
        Study.open(tmp_path / "lab", "study")


def test_a_cell_that_was_exchanged_or_edited_is_refused(base, tmp_path):
    study = finished(study_of(base, tmp_path, grid({"model.norm": ["rms", "layer"]})))
    folder = study.lab / "cells" / study.cells()[0]
    config = json.loads((folder / "config.json").read_text())
    config["train"]["steps"] = 13
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="a run of another config than the study's"):
        study.comparisons()


def test_a_study_not_run_yet_says_nothing_of_its_arms(base, tmp_path):
    study = study_of(base, tmp_path, grid({"model.norm": ["rms", "layer"]}))
    (found,) = study.comparisons()
    assert (found.word, found.n) == ("not resolved", 0)
    assert math.isnan(found.mean)
    assert "waiting" in report.markdown(study)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (grid({"data.val_fraction": [0.1, 0.2]}), "arms with other texts or splits"),
        (grid({"data.tokenizer": ["char", "byte"]}), "expected val_bits_per_byte"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(base, tmp_path, arms, message):
    with pytest.raises(ConfigError, match=message):
        study_of(base, tmp_path, arms)


def test_a_metric_that_runs_do_not_have_is_refused(base, tmp_path):
    design = Design(base, grid({"model.norm": ["rms", "layer"]}), [0, 1])
    with pytest.raises(ConfigError, match="--metric: 'accuracy' found; expected one of"):
        Study.create(tmp_path / "lab", "study", design, metric="accuracy")
