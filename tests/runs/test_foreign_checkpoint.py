import shutil

import pytest
from tiny_run import config_of, finish, stopping_at

from assay.errors import CheckpointError, RunError
from assay.runs.run import Run


def stopped(config, path):
    run = Run.create(config, path)
    finish(run, stop=stopping_at(4))
    return run


def replace(run, other):
    here = run.folder.checkpoints / "step-000003"
    shutil.rmtree(run.folder.checkpoints)
    shutil.copytree(other.folder.checkpoints / "step-000003", here)


@pytest.mark.parametrize("changes", [{"train__seed": 5}, {"train__optimizer__lr": 1e-3}])
def test_a_run_does_not_go_on_from_the_checkpoint_of_another_config(text, tmp_path, changes):
    run = stopped(config_of(text), tmp_path / "one")
    replace(run, stopped(config_of(text, **changes), tmp_path / "two"))
    with pytest.raises(CheckpointError, match="another config or text"):
        finish(Run.open(tmp_path / "one"))


def test_a_run_does_not_go_on_from_the_checkpoint_of_another_text(text, tmp_path):
    run = stopped(config_of(text), tmp_path / "one")
    before = text.read_text(encoding="utf-8")
    text.write_text(before + before[::-1], encoding="utf-8")
    replace(run, stopped(config_of(text), tmp_path / "two"))
    text.write_text(before, encoding="utf-8")
    with pytest.raises(CheckpointError, match="another config or text"):
        finish(Run.open(tmp_path / "one"))


def test_a_checkpoint_renamed_to_a_later_step_is_refused(text, tmp_path):
    run = stopped(config_of(text), tmp_path / "one")
    newest = run.folder.checkpoints / "step-000003"
    newest.rename(newest.with_name("step-000500"))
    with pytest.raises(CheckpointError, match="holds step 3"):
        Run.open(tmp_path / "one").load()


def test_rows_of_metrics_that_are_not_those_written_are_noted(text, tmp_path):
    run = stopped(config_of(text), tmp_path / "one")
    path = run.folder.path / "metrics.jsonl"
    written = path.read_text()
    for content in ('{"kind": "train", "step": "1"}\n', written.replace("1", "2", 1), ""):
        path.write_text(content)
        again = Run.open(tmp_path / "one")
        finish(again, stop=lambda: True)
        (note,) = again.notes
        assert "metrics.jsonl: its rows up to step" in note
        assert note in again.folder.read_manifest()["notes"]


def test_a_row_of_metrics_without_a_step_among_the_others_is_named(text, tmp_path):
    run = stopped(config_of(text), tmp_path / "one")
    path = run.folder.path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": "1"}\n' + path.read_text())
    with pytest.raises(RunError, match=r"metrics.jsonl, line 1"):
        finish(Run.open(tmp_path / "one"))
