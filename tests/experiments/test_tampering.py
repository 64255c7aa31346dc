"""Studies edited by hand, made by other code, or on a disk that is full: a sentence each."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_study import finished, planned, study_of

from assay.errors import RunError
from assay.experiments import report
from assay.experiments.code import code_sha256
from assay.experiments.design import grid
from assay.experiments.results import Results
from assay.experiments.study import Study, _keys, _prepared
from assay.experiments.written import write_whole

NORMS = grid({"model.norm": ["rms", "none"]})
OLD = "0" * 64


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(metric="val_bits_per_byte"),
        lambda c: c.update(seeds=[0, 1]),
        lambda c: c.update(delta=0.5),
        lambda c: c["base"]["train"].update(steps=99),
        lambda c: c["keys"].update(dict.fromkeys(c["keys"], c["keys"][NORMS[0].name])),
        lambda c: c.pop("sha256"),
    ],
)
def test_a_study_file_edited_by_hand_is_refused(base, tmp_path, change):
    study = study_of(base, tmp_path, NORMS)
    edited(study.folder / "study.json", change)
    with pytest.raises(RunError, match=r"study\.json: edited since it was written"):
        Study.open(study.lab, "study")
    with pytest.raises(RunError, match=r"study\.json: edited since it was written"):
        study_of(base, tmp_path, NORMS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "nothing found; expected a value"),
        ("[1]", "list found; expected a JSON object"),
        ("{", "unreadable"),
        ('{"keys": {"a": {}, "b": {}}, "seeds": ["x"]}', "unreadable"),
    ],
)
def test_a_study_file_that_is_none_is_one_sentence(base, tmp_path, content, message):
    study = study_of(base, tmp_path, NORMS)
    (study.folder / "study.json").write_text(content)
    with pytest.raises(RunError, match=message) as error:
        Study.open(study.lab, "study")
    assert "\n" not in str(error.value)


def test_a_study_file_that_lacks_a_cell_is_refused(base, tmp_path):
    study = study_of(base, tmp_path, NORMS)
    edited(study.folder / "study.json", lambda c: c["keys"][NORMS[0].name].pop("1"))
    with pytest.raises(RunError, match=r"keys: none for arm 'model.norm=rms' and seed 1"):
        Study.open(study.lab, "study")


@pytest.mark.slow
def test_a_result_edited_after_its_run_ended_is_noticed_and_a_removed_cell_run_again(
    base, tmp_path
):
    study = finished(study_of(base, tmp_path, NORMS, seeds=(0, 1)))
    found = study.outcomes()
    path = study.lab / "cells" / study.cells()[0] / "manifest.json"
    edited(path, lambda c: c["result"].update(val_loss_nats=0.5))
    with pytest.raises(RunError, match=r'"val_loss_nats": 0\.5.* found, .* when the run ended'):
        study.outcomes()
    edited(path, lambda c: c.pop("result"))
    with pytest.raises(RunError, match=r"finished, but no result found in its manifest"):
        study.outcomes()
    shutil.rmtree(path.parent)
    assert study.outcomes()[NORMS[0].name][0].state == "waiting"
    again = finished(study).outcomes()
    assert [run.metrics for run in again[NORMS[0].name]] == [
        run.metrics for run in found[NORMS[0].name]
    ]


def made_by_other_code(base, tmp_path):
    """A study whose cells other code ran, all but the last; its keys are what that code makes."""
    study = planned(base, tmp_path, NORMS, seeds=(0, 1))
    keys = _keys(study.design, _prepared(study.design), OLD)
    record = study.record.model_copy(update={"keys": keys, "code_sha256": OLD})
    old = finished(replace(study, record=record).written())
    shutil.rmtree(old.lab / "cells" / old.cells()[-1])
    return old


@pytest.mark.slow
def test_results_of_other_code_are_refused_and_marked_when_they_are_asked_for(base, tmp_path):
    old = made_by_other_code(base, tmp_path)
    now = planned(base, tmp_path, NORMS, seeds=(0, 1))
    with pytest.raises(RunError, match=r"runs made by other code found .* by --mix-code"):
        now.written()
    mixed = now.written(mix_code=True)
    assert mixed.cells()[:-1] == old.cells()[:-1]
    assert mixed.cells()[-1] == now.cells()[-1] != old.cells()[-1]
    assert mixed.record.other_code == dict.fromkeys(old.cells()[:-1], OLD)
    page = report.markdown(Results.of(finished(mixed)))
    assert "**Mixed**: 3 of 4 runs were made by other code" in page
    assert page.count("| other: 000000000000 |") == 3
    assert page.count("| same |") == 1
    with pytest.raises(RunError, match="by --mix-code"):
        now.written()  # asked for each time
    assert now.written(mix_code=True).record == mixed.record
    assert Study.open(now.lab, "study").record == mixed.record


@pytest.mark.slow
def test_cells_of_other_code_on_another_text_are_not_mixed_in(base, tmp_path):
    made_by_other_code(base, tmp_path)
    text = Path(base.data.text[0])
    text.write_text(text.read_text() + "mới.\n" * 20)
    mixed = planned(base, tmp_path, NORMS, seeds=(0, 1)).written(mix_code=True)
    assert mixed.record.other_code == {}
    assert mixed.record.code_sha256 == code_sha256()


def test_another_study_of_the_name_is_refused_with_what_differs(base, tmp_path):
    study_of(base, tmp_path, NORMS)
    with pytest.raises(RunError, match=r"another study .* differs in seeds\. Choose another"):
        study_of(base, tmp_path, NORMS, seeds=(0, 1))
    with pytest.raises(RunError, match=r"differs in metric, delta\."):
        study_of(base, tmp_path, NORMS, metric="val_bits_per_byte", delta=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(base, tmp_path):
    study = planned(base, tmp_path, NORMS)
    study.folder.mkdir(parents=True)
    (study.folder / "study.json.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"study\.json: cannot be written: No space left on device"):
        study.written()
    page = tmp_path / "report.md"
    page.write_text("as it was")
    page.with_name("report.md.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match="Make room or permission"):
        write_whole(page, "new" * 9999)
    assert page.read_text() == "as it was"
