import json
import os
import signal
import time

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import TEXT, bits_of, config_of, finish, in_child, stopping_at

from assay.errors import DataError, DivergedError, RunError
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints, read_state
from patience import HANG_S, wait_until


def created(text, tmp_path, name="run", **changes):
    return Run.create(config_of(text, **changes), tmp_path / name)


def status(run):
    return run.folder.read_manifest()["status"]


def edit_manifest(run, change):
    manifest = run.folder.read_manifest()
    change(manifest)
    run.folder.write_json("manifest.json", manifest)


def test_a_run_from_its_start_to_its_end(tmp_path, text):
    run = created(text, tmp_path)
    reports = finish(run)
    assert [report.step for report in reports] == list(range(9))
    assert reports[0].panel is not None
    assert [report.step for report in reports if report.val] == [3, 6, 8]
    assert [report.step for report in reports if report.checkpoint] == [3, 6, 8]
    manifest = run.folder.read_manifest()
    assert manifest["status"] == "finished"
    assert manifest["started"] <= manifest["ended"]
    result = manifest["result"]
    assert result["step"] == 8
    assert result["val_bits_per_byte"] > 0
    sample = (tmp_path / "run" / "samples" / "step-000008.txt").read_text(encoding="utf-8")
    assert 0 < len(sample) <= 24
    assert set(sample) <= set(TEXT)


def test_the_result_is_over_the_whole_validation_split(tmp_path, text):
    run = created(text, tmp_path, eval__max_tokens=16)
    reports = finish(run)
    assert reports[-1].val.tokens == 16
    val_tokens = run.folder.read_manifest()["data"]["val"]["tokens"]
    assert run.folder.read_manifest()["result"]["val_tokens"] == (val_tokens - 1) // 16 * 16


def test_a_finished_run_cannot_be_resumed(tmp_path, text):
    run = created(text, tmp_path)
    finish(run)
    before = run.folder.read_manifest()
    with pytest.raises(
        RunError, match=r"all 8 steps are done\. Ask it for text: assay generate run"
    ):
        finish(run)
    assert run.folder.read_manifest() == before


def test_a_generator_abandoned_half_way_is_an_interrupt_and_frees_the_run(tmp_path, text):
    run = created(text, tmp_path)
    reports = run.train()
    while next(reports).step < 4:
        pass
    assert status(run) == "running"
    reports.close()
    assert status(run) == "interrupted"
    assert [report.step for report in finish(run)] == [4, 5, 6, 7, 8]


def test_two_trainings_of_one_run_in_one_process_are_refused_too(tmp_path, text):
    run = created(text, tmp_path)
    reports = run.train()
    next(reports)
    with pytest.raises(RunError, match="another process is training in this folder"):
        next(Run.open(tmp_path / "run").train())
    reports.close()
    finish(run)


@pytest.mark.usefixtures("forks")
def test_a_run_another_process_trains_is_refused_until_that_dies(tmp_path, text):
    run = created(text, tmp_path)
    ready, gone = tmp_path / "ready", []

    def hold_for_ever():
        reports = Run.open(tmp_path / "run").train()
        next(reports)
        ready.touch()
        time.sleep(HANG_S)  # it is killed before

    def wait_then_kill():
        wait_until(ready.exists)
        with pytest.raises(RunError, match="another process is training in this folder"):
            finish(run)
        gone.append(status(run))

    child = os.fork()
    if child == 0:
        try:
            hold_for_ever()
        finally:
            os._exit(1)
    try:
        wait_then_kill()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert gone == ["running"]
    assert [report.step for report in finish(run)] == list(range(9))


def test_a_text_that_changed_is_refused_with_both_hashes(tmp_path, text):
    run = created(text, tmp_path)
    began = run.folder.read_manifest()["data"]["data_sha256"]
    finish(run, stop=stopping_at(3))
    text.write_text(TEXT.replace("17", "71"))
    found = created(text, tmp_path, "other").folder.read_manifest()["data"]["data_sha256"]
    with pytest.raises(DataError, match=rf"{found[:16]}.* found, {began[:16]}.* when the run"):
        finish(run)
    text.write_text(TEXT)
    assert finish(run)[0].step == 4


def test_a_text_that_is_gone_is_taken_from_the_cache_and_refused_without_it(tmp_path, text):
    whole = created(text, tmp_path, "whole")
    finish(whole)
    run = created(text, tmp_path)
    finish(run, stop=stopping_at(3))
    text.unlink()
    finish(run, stop=stopping_at(2))
    (tmp_path / "cache").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"text\.txt"):
        finish(run)
    (tmp_path / "moved").rename(tmp_path / "cache")
    finish(run)
    assert bits_of(run) == bits_of(whole)


def test_a_tokenizer_that_changed_is_refused(tmp_path, text):
    run = created(text, tmp_path)
    finish(run)
    chars = tmp_path / "run" / "tokenizer" / "chars.json"
    fields = json.loads(chars.read_text())
    fields["alphabet"] = fields["alphabet"][:-1] + "€"
    chars.write_text(json.dumps(fields))
    with pytest.raises(RunError, match="the tokenizer is not the one this model was trained with"):
        run.write("été")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 64),
        ("device_name", "another"),
        ("cpu_capability", "NEON"),
        ("precision", "bf16"),
    ],
)
def test_another_machine_is_refused_unless_allowed_and_then_recorded(tmp_path, text, field, value):
    run = created(text, tmp_path, train__precision="fp32")
    edit_manifest(run, lambda manifest: manifest["machine"].update({field: value}))
    with pytest.raises(RunError, match=rf"not go on bit for bit here \({field}: {value} so far"):
        finish(run)
    assert run.folder.read_manifest()["stretches"] == []
    finish(run, anyway=True)
    (session,) = run.folder.read_manifest()["stretches"]
    assert session["changes"] == [f"{field}: {value} so far, {session['machine'][field]} here"]


def test_another_torch_is_refused(tmp_path, text):
    run = created(text, tmp_path)
    edit_manifest(run, lambda manifest: manifest["machine"].update(torch="1.0"))
    with pytest.raises(RunError, match=r"torch: 1\.0 so far"):
        finish(run)


def test_a_machine_allowed_once_is_where_the_run_stands_from_then_on(tmp_path, text):
    run = created(text, tmp_path)
    edit_manifest(run, lambda manifest: manifest["machine"].update(threads=64))
    finish(run, anyway=True, stop=stopping_at(4))
    (newest, *_) = checkpoints(run.folder.checkpoints)
    assert read_state(newest)["machine"]["threads"] == 1
    finish(run)
    stretches = run.folder.read_manifest()["stretches"]
    assert [len(session["changes"]) for session in stretches] == [1, 0]


def test_a_diverged_run_keeps_the_last_good_state_and_says_so(tmp_path, text):
    run = created(
        text, tmp_path, train__optimizer__lr=1e30, model__norm="none", train__schedule="constant"
    )
    with pytest.raises(DivergedError, match=r"^step 2: loss"):
        finish(run)
    manifest = run.folder.read_manifest()
    assert manifest["status"] == "diverged"
    assert manifest["error"].startswith("step 2: loss")
    (newest,) = checkpoints(run.folder.checkpoints)
    assert read_state(newest)["step"] == 1
    model, _ = run.load()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_run_that_diverges_in_its_first_step_can_still_be_looked_at(tmp_path, text):
    run = created(text, tmp_path, model__init={"kind": "gaussian", "std": 1e30})
    with pytest.raises(DivergedError, match=r"^step 1: "):
        finish(run)
    assert status(run) == "diverged"
    with pytest.raises(DivergedError, match=r"^step 1: "):
        finish(run)
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [0]


def test_an_exception_of_the_reader_leaves_an_interrupted_run(tmp_path, text):
    run = created(text, tmp_path)

    def read():
        for report in run.train():
            if report.step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert status(run) == "interrupted"
    finish(run)


def test_the_curve_is_a_picture_with_something_on_it(tmp_path, text):
    list(created(text, tmp_path).train())
    with Image.open(tmp_path / "run" / "curve.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (864, 504)  # 7.2 × 4.2 inches at 120 dots
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert any(blue > red + 50 for red, _, blue in colours)  # the training loss
    assert any(red > blue + 50 for red, _, blue in colours)  # the validation loss


def test_a_disk_that_takes_no_checkpoint_ends_the_run_in_one_sentence(tmp_path, text, monkeypatch):
    run = created(text, tmp_path)
    finish(run, stop=stopping_at(3))
    path = tmp_path / "run" / "checkpoints" / "step-000006.tmp"
    path.write_text("a file in the way of the folder")
    monkeypatch.setattr("shutil.rmtree", lambda *arguments, **keywords: None)
    with pytest.raises(RunError, match="step-000006: the checkpoint could not be written"):
        finish(run)
    assert status(run) == "interrupted"
    assert [folder.name for folder in checkpoints(path.parent)] == ["step-000003"]


def test_metrics_that_cannot_be_written_end_the_run_in_one_sentence(tmp_path, text):
    run = created(text, tmp_path)
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"metrics\.\w+: could not be written: "):
        finish(run)


def test_metrics_that_were_damaged_are_one_sentence(tmp_path, text):
    run = created(text, tmp_path)
    finish(run, stop=stopping_at(3))
    path = tmp_path / "run" / "metrics.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(first + "\0\0\0\0\n" + "".join(rest))
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: not a row of metrics"):
        finish(run)


def test_what_a_power_cut_left_after_the_last_saved_row_is_superseded(tmp_path, text):
    run = created(text, tmp_path)
    finish(run, stop=stopping_at(3))
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0\n\0\0")
    finish(run)
    steps = [row["step"] for row in read_rows(path) if row["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8


def test_tensorboard_gets_the_numbers_of_the_reports_where_it_is_asked_for(tmp_path, text):
    run = created(text, tmp_path, train__tensorboard=True)
    reports = finish(run, stop=stopping_at(4))
    reports += finish(run)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss_nats")}
    expected = {r.step: r.loss_nats for r in reports if r.step}
    assert losses == pytest.approx(expected, rel=1e-6)
    assert [event.step for event in events.Scalars("val/bits_per_byte")] == [3, 6, 8]


def test_tensorboard_shows_a_superseded_step_once(tmp_path, text):
    run = created(text, tmp_path, train__tensorboard=True)
    finish(run, stop=stopping_at(6))
    (tmp_path / "run" / "checkpoints" / "step-000006" / "state.json").unlink()
    assert finish(run)[0].step == 4
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/lr")] == list(range(1, 9))


def test_tensorboard_is_left_out_where_it_is_not_asked_for(tmp_path, text):
    finish(created(text, tmp_path))
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.slow
def test_bfloat16_on_a_cpu_trains(tmp_path, text):
    run = created(text, tmp_path, train__precision="bf16")
    finish(run)
    assert status(run) == "finished"
    assert {p.dtype for p in run.load()[0].parameters()} == {torch.float32}


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_stop_at_any_step_saves_that_step(tmp_path, text, step):
    run = created(text, tmp_path)
    reports = finish(run, stop=stopping_at(step))
    assert reports[-1].step == step
    assert reports[-1].checkpoint.name == f"step-{step:06d}"
    assert status(run) == "interrupted"


@pytest.mark.slow
def test_the_best_checkpoint_stays_beside_the_newest(tmp_path, text):
    """The rate is so high that evaluations go up and down, and some seed's best is an early one."""
    early = []
    for seed in range(4):
        run = created(
            text,
            tmp_path / str(seed),
            train__steps=6,
            train__seed=seed,
            train__checkpoint_every=1,
            train__keep_checkpoints=1,
            eval__every=1,
            train__optimizer={"kind": "adamw", "lr": 1.0},
            train__schedule={"kind": "constant"},
        )
        reports = finish(run, stop=stopping_at(4)) + finish(run)
        losses = {report.step: report.val.loss_nats for report in reports if report.val}
        best = min(losses, key=losses.get)
        found = {path.name for path in checkpoints(run.folder.checkpoints)}
        assert found == {"step-000006", f"step-{best:06d}"}
        early.append(best < 4)
    assert any(early)


def test_a_child_that_trains_to_the_end_leaves_a_finished_run(tmp_path, text):
    run = created(text, tmp_path)
    assert in_child(lambda: finish(run)) == 0
    assert status(run) == "finished"
