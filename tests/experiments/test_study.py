import json
import math

import pytest
from small_study import base_on, finished, study_of

from assay.errors import ConfigError, RunError
from assay.experiments import report
from assay.experiments.design import Arm, Design, grid
from assay.experiments.jobs import Jobs
from assay.experiments.results import Results
from assay.experiments.study import Study
from assay.runs.metrics import read_rows


@pytest.mark.slow
def test_an_arm_that_trains_less_is_found_worse_and_the_report_says_so(base, tmp_path):
    arms = [Arm("long", {"train.steps": 12}), Arm("short", {"train.steps": 1})]
    study = finished(study_of(base, tmp_path, arms))
    (found,) = study.comparisons()
    assert found.word == "higher"
    page = report.markdown(Results.of(study))
    assert found.sentence in page
    assert "| short |" in page
    assert "(x0.0833)" in page  # a twelfth of the FLOPs: better would not be silently bigger
    rows = report.runs_csv(Results.of(study)).splitlines()
    assert len(rows) == 1 + 6
    assert report.comparisons_csv(Results.of(study)).splitlines()[1].startswith("short,3,")
    assert report.latex(Results.of(study)).count(r"\\") == 3


@pytest.mark.slow
def test_planted_effects_are_found_and_an_arm_alike_is_not_called_different(base, tmp_path):
    """Real runs: a rate of a hundredth, an output that is held back, other rounding alone."""
    adamw = base_on(*base.data.text, train__optimizer="adamw", train__steps=40)
    arms = [
        Arm("first", {"train.optimizer.lr": 4e-3}),
        Arm("alike", {"train.optimizer.lr": 4e-3, "train.micro_batches": 2}),
        Arm("slow", {"train.optimizer.lr": 4e-5}),
        Arm("capped", {"train.optimizer.lr": 4e-3, "model.soft_cap": 0.5}),
    ]
    study = finished(study_of(adamw, tmp_path, arms, delta=0.01))
    words = {found.arm: found.word for found in study.comparisons()}
    assert words == {"alike": "equivalent", "slow": "higher", "capped": "higher"}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert "waiting" in report.markdown(Results.of(study))


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
