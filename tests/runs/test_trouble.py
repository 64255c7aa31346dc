"""Steps that cannot be taken, steps that a second computation saves, and spikes."""

import json
import math
import time

import pytest
from tiny_run import config_of, finish, stopping_at

import assay.train.checkpoint_manager
from assay.errors import DivergedError
from assay.runs.metrics import read_rows
from assay.runs.run import Run
from assay.train.checkpoint import checkpoints, read_optim, read_state


def created(text, path, **changes):
    return Run.create(config_of(text, train__log_every=1, **changes), path)


def train_with_gradients(run, change, *, stop=lambda: False):
    """Train while `change(step, visit)` is a factor of every gradient of the embedding.

    A visit is one backward pass of a step: the second is the one that checks the first.
    """
    reports = []
    with run.at_work() as session:
        visits = {}

        def spoilt(gradient):
            step = session.step + 1
            visits[step] = visits.get(step, 0) + 1
            return gradient * change(step, visits[step])

        session.parts.model.embed.weight.register_hook(spoilt)
        reports.extend(session.run(stop))
    return reports


def rows(run, kind):
    return [row for row in read_rows(run.folder.path / "metrics.jsonl") if row["kind"] == kind]


def bits(run):
    newest = checkpoints(run.folder.checkpoints)[0]
    return [(newest / name).read_bytes() for name in ("model.safetensors", "optim.safetensors")]


def nan_at(*steps):
    return lambda step, visit: math.nan if step in steps else 1.0


def test_a_gradient_that_is_no_number_stops_a_run_after_a_second_look(tmp_path, text):
    run = created(text, tmp_path / "run")
    with pytest.raises(DivergedError, match=r"^step 5: gradient norm nan .* embed\.weight.* second "
                       r"computation came to the same, so the cause is the model or its data.* "
                       r"assay data show RUN --step 5"):  # fmt: skip
        train_with_gradients(run, nan_at(5))
    assert read_state(checkpoints(run.folder.checkpoints)[0])["step"] == 4


def test_a_step_that_is_skipped_updates_nothing_and_is_a_row(tmp_path, text):
    run = created(text, tmp_path / "run", train__on_nonfinite="skip", train__checkpoint_every=1,
                  train__keep_checkpoints=8)  # fmt: skip
    reports = train_with_gradients(run, nan_at(5))
    (skip,) = rows(run, "skip")
    assert skip["step"] == 5
    assert skip["why"].startswith("step 5: gradient norm nan")
    assert [report.step for report in reports if report.trouble] == [5]
    assert [row["step"] for row in rows(run, "train")] == [1, 2, 3, 4, 6, 7, 8]
    saved = {read_state(path)["step"]: path for path in checkpoints(run.folder.checkpoints)}
    for name in ("model.safetensors", "optim.safetensors"):
        before, after, later = ((saved[step] / name).read_bytes() for step in (4, 5, 6))
        assert before == after != later


def test_a_run_whose_first_step_is_skipped_can_be_resumed(tmp_path, text):
    """Its optimizer has no state yet."""
    run = created(text, tmp_path / "run", train__on_nonfinite="skip")
    train_with_gradients(run, nan_at(1), stop=stopping_at(1))
    assert read_optim(checkpoints(run.folder.checkpoints)[0]) == {}
    run = Run.open(tmp_path / "run")
    assert [report.step for report in finish(run)] == list(range(2, 9))


def test_a_first_computation_gone_wrong_is_told_from_a_bad_model_and_leaves_no_trace(
    tmp_path, text
):
    """The second computation's numbers are those of a run in which nothing went wrong."""
    sound = created(text, tmp_path / "sound", train__on_nonfinite="skip")
    finish(sound)
    run = created(text, tmp_path / "run", train__on_nonfinite="skip")
    train_with_gradients(run, lambda step, visit: math.inf if (step, visit) == (5, 1) else 1.0)
    (row,) = rows(run, "recomputed")
    assert row["step"] == 5
    assert "the cause is the machine" in row["why"]
    assert bits(run) == bits(sound)
    assert rows(run, "train") == rows(sound, "train")
    assert rows(run, "skip") == []


def test_a_first_computation_gone_wrong_stops_a_run_that_is_not_told_to_skip(tmp_path, text):
    run = created(text, tmp_path / "run")
    with pytest.raises(DivergedError, match=r"step 5: .* the cause is the machine"):
        train_with_gradients(run, lambda step, visit: math.inf if (step, visit) == (5, 1) else 1.0)
    sound = created(text, tmp_path / "sound")
    finish(sound)
    finish(run)
    assert bits(run) == bits(sound)


def test_ten_skipped_steps_in_a_row_end_a_run_wherever_it_was_interrupted(tmp_path, text):
    fields = {"train__steps": 30, "train__on_nonfinite": "skip"}
    from_7 = nan_at(*range(7, 31))
    whole = created(text, tmp_path / "whole", **fields)
    broken = created(text, tmp_path / "broken", **fields)
    train_with_gradients(broken, from_7, stop=stopping_at(11))
    for run in (whole, broken):
        with pytest.raises(DivergedError, match=r"^10 steps in a row were skipped.* step 16: "):
            train_with_gradients(run, from_7)
        assert run.folder.read_manifest()["status"] == "diverged"
        assert [row["step"] for row in rows(run, "skip")] == list(range(7, 17))
    assert bits(whole) == bits(broken)


@pytest.mark.slow
def test_a_gradient_a_hundred_times_too_large_is_a_spike_and_is_seen_after_a_resume_too(
    tmp_path, text
):
    """The values it is compared with come out of the checkpoint."""
    fields = {"train__steps": 48}
    whole = created(text, tmp_path / "whole", **fields)
    broken = created(text, tmp_path / "broken", **fields)

    def hundredfold(step, visit):
        return 100.0 if step == 40 else 1.0

    reports = train_with_gradients(whole, hundredfold)
    train_with_gradients(broken, hundredfold, stop=stopping_at(20))
    train_with_gradients(broken, hundredfold)
    (spike,) = (row for row in rows(whole, "spike") if row["step"] == 40)
    assert spike["quantity"] == "grad_norm"
    before = [row["grad_norm"] for row in rows(whole, "train") if row["step"] < 40]
    assert spike["mean"] == pytest.approx(sum(before) / len(before))
    assert spike["value"] > spike["mean"] + 7 * spike["std"]
    assert [report.step for report in reports if report.spikes] == [
        row["step"] for row in rows(whole, "spike")
    ]
    assert (broken.folder.path / "metrics.jsonl").read_bytes() == (
        whole.folder.path / "metrics.jsonl"
    ).read_bytes()


def test_what_a_checkpoint_says_of_its_run(tmp_path, text):
    run = created(text, tmp_path / "run")
    finish(run)
    path = checkpoints(run.folder.checkpoints)[0]
    state = json.loads((path / "state.json").read_text())
    assert state["machine"]["threads"] == 1
    assert {"torch", "cpu_capability", "compiled", "precision"} <= state["machine"].keys()
    assert state["config"] == json.loads((run.folder.path / "config.json").read_text())
    assert state["ties"] == {"unembed.weight": "embed.weight"}
    assert len(state["lookout"]["loss_nats"]) == 8
    (session,) = run.folder.read_manifest()["stretches"]
    assert 0 < session["save_s"] < 60


@pytest.mark.slow
def test_checkpoints_that_cost_more_than_they_should_are_noted(tmp_path, text, monkeypatch):
    """Each takes half a second here, and a step some milliseconds."""
    write = assay.train.checkpoint_manager.write_checkpoint

    def slowly(*arguments):
        time.sleep(0.6)
        return write(*arguments)

    monkeypatch.setattr(assay.train.checkpoint_manager, "write_checkpoint", slowly)
    run = created(text, tmp_path / "run")
    finish(run)
    (note,) = run.notes
    assert "train.checkpoint_every" in note
    assert run.folder.read_manifest()["notes"] == [note]


def test_an_optimizer_that_is_no_longer_finite_ends_the_run_at_the_next_checkpoint(tmp_path, text):
    """Its updates would be zero from then on, and its checkpoints worthless."""
    run = created(text, tmp_path / "run", train__checkpoint_every=2)

    def spoil_after_step_5():
        with run.at_work() as session:
            for report in session.run(lambda: False):
                if report.step == 5:
                    state = session.parts.optimizers.state()
                    next(v for name, v in state.items() if "exp_avg_sq" in name).fill_(math.inf)

    with pytest.raises(DivergedError, match=r"^step 6: the optimizer's .* is not finite"):
        spoil_after_step_5()
    assert read_state(checkpoints(run.folder.checkpoints)[0])["step"] == 4
    assert run.folder.read_manifest()["status"] == "diverged"
