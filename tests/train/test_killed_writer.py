"""A writer of checkpoints killed at every one of its file operations.

The harness can tell a bad writer: one that writes under the final name fails in it.
"""

import json
import os
import shutil
import signal
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import copied, model_of, same_bits

import assay.train.checkpoint
from assay.errors import AssayError
from assay.train.checkpoint import (
    checkpoints,
    newest_valid,
    read_model,
    read_optim,
    read_state,
    write_checkpoint,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
OPERATIONS = ("open", "os.", "shutil.")  # of the interpreter's audit events
OPTIM = {"embed.weight/exp_avg": torch.arange(6.0)}


def killed_at(point, work):
    """Run `work` in a child killed before its file operation number `point`; was it reached?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of a library
        child = os.fork()
    if child == 0:
        count = 0

        def hook(event, arguments):
            nonlocal count
            if event.startswith(OPERATIONS):
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def naive_write(parent, model, optim, state):
    """As training scripts do: one file after another, under the final name."""
    folder = parent / f"step-{state['step']:06d}"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    save_file(optim, folder / "optim.safetensors")
    (folder / "state.json").write_text(json.dumps(state))


def naive_read(parent):
    folder = checkpoints(parent)[0]
    weights = load_file(folder / "model.safetensors")
    return weights, load_file(folder / "optim.safetensors"), read_state(folder)


def careful_read(parent):
    folder, _ = newest_valid(parent)
    weights = read_model(folder, model_of().config).state_dict()
    return weights, read_optim(folder), read_state(folder)


def survives(parent, read, models):
    """Whether what is read is whole, and of one of the two models."""
    try:
        weights, optim, state = read(parent)
    except (OSError, ValueError, LookupError, RuntimeError, AssayError):
        return False
    expected = models[state.get("version", state["step"])].state_dict()
    return same_bits(weights, expected) and same_bits(optim, OPTIM)


def kill_everywhere(tmp_path, write, read, *, start=1):
    """Return, for each point, whether the folder could be read afterwards and which step it had."""
    models = {step: model_of(seed=step) for step in (1, 2)}
    template = tmp_path / "template"
    template.mkdir()
    write(template, models[1], OPTIM, {"step": 1})
    outcomes = []
    for point in range(start, 200):
        parent = tmp_path / "killed"
        shutil.rmtree(parent, ignore_errors=True)
        shutil.copytree(template, parent)
        reached = killed_at(point, lambda: write(parent, models[2], OPTIM, {"step": 2}))  # noqa: B023
        whole = survives(parent, read, models)
        outcomes.append((whole, read(parent)[2]["step"] if whole else None))
        if not reached:
            return outcomes
    raise AssertionError("the writer never came to its end")


@pytest.mark.slow
def test_a_writer_killed_at_any_point_leaves_the_old_checkpoint_or_the_new(tmp_path):
    outcomes = kill_everywhere(tmp_path, write_checkpoint, careful_read)
    assert len(outcomes) > 15
    assert all(whole for whole, _ in outcomes)
    steps = [step for _, step in outcomes]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


@pytest.mark.slow
def test_a_writer_of_the_same_step_again_killed_at_any_point_leaves_one_of_the_two(tmp_path):
    """The old one must not be gone before the new one has its name."""
    models = {version: model_of(seed=version) for version in (1, 2)}
    found = []
    for point in range(1, 200):
        parent = tmp_path / "killed"
        shutil.rmtree(parent, ignore_errors=True)
        write_checkpoint(parent, models[1], OPTIM, {"step": 5, "version": 1})
        new = {"step": 5, "version": 2}
        reached = killed_at(point, lambda: write_checkpoint(parent, models[2], OPTIM, new))  # noqa: B023
        assert survives(parent, careful_read, models)
        found.append(careful_read(parent)[2]["version"])
        if not reached:
            break
    assert found == sorted(found)
    assert set(found) == {1, 2}


def test_the_harness_catches_a_naive_writer(tmp_path):
    outcomes = kill_everywhere(tmp_path, naive_write, naive_read)
    assert outcomes[-1] == (True, 2)
    assert not all(whole for whole, _ in outcomes)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_writer_killed_in_the_middle_of_a_file_leaves_the_old_checkpoint(
    tmp_path, monkeypatch, share
):
    models = {step: model_of(seed=step) for step in (1, 2)}
    write_checkpoint(tmp_path, models[1], OPTIM, {"step": 1})

    def half_written(tensors, path):
        save_file(tensors, path)
        os.truncate(path, int(share * path.stat().st_size))
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(assay.train.checkpoint, "save_file", half_written)
        assert killed_at(0, lambda: write_checkpoint(tmp_path, models[2], OPTIM, {"step": 2}))
    assert (tmp_path / "step-000002.tmp").is_dir()
    assert survives(tmp_path, careful_read, models)
    write_checkpoint(tmp_path, models[2], OPTIM, {"step": 2})
    assert same_bits(copied(careful_read(tmp_path)[0]), models[2].state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]
