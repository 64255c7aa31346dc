import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import config_of, copied, model_of, plan_of, random_batch, same_bits

from assay.errors import CheckpointError, RunError
from assay.train.checkpoint import (
    checkpoints,
    newest_valid,
    read_model,
    read_optim,
    read_state,
    verify_checkpoint,
    write_checkpoint,
)
from assay.train.checkpoint_manager import CheckpointManager
from assay.train.loop import train
from assay.train.optim import OPTIMIZERS, AdamWConfig

FILES = ["model.safetensors", "optim.safetensors", "state.json", "MANIFEST.json"]
WITHOUT_SPACE = OSError(28, "No space left on device")


def write_steps(parent, last, optimizer=None, **model_fields):
    """Train and write a checkpoint after each step; return the model and its optimizers."""
    model = model_of(**model_fields)
    optimizers = (optimizer or AdamWConfig()).build(model)
    for report in train(model, random_batch, optimizers, plan_of(steps=last)):
        state = {"step": report.step, "note": "Ω\n"}
        write_checkpoint(parent, model, optimizers.state(), state)
    return model, optimizers


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Checkpoints of steps 1 and 2 of one run; copied by tests that damage them."""
    folder = tmp_path_factory.mktemp("written")
    write_steps(folder, 2)
    return folder


@pytest.fixture
def pair(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_what_is_read_is_what_was_written_to_the_bit(tmp_path, cls, tied):
    model, optimizers = write_steps(tmp_path, 2, cls(), tie_embeddings=tied, bias=True)
    folder, reasons = newest_valid(tmp_path)
    assert (folder.name, reasons) == ("step-000002", [])
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    again = read_model(folder, model.config)
    assert again.config == model.config
    assert same_bits(again.state_dict(), model.state_dict())
    assert same_bits(read_optim(folder), copied(optimizers.state()))
    assert read_state(folder) == {"step": 2, "note": "Ω\n"}


def test_what_is_read_lies_in_memory_as_pytorch_lays_it_out(tmp_path):
    """In the file a tensor begins at any byte, where PyTorch's products would round otherwise."""
    config = AdamWConfig()
    model, optimizers = write_steps(tmp_path, 1, config, d_model=24, mlp="gelu", bias=True)
    folder = tmp_path / "step-000001"
    own = max(64, *(_alignment(p) for p in model.parameters()))
    read = [*read_model(folder, model.config).parameters(), *read_optim(folder).values()]
    assert len(read) == len(list(model.parameters())) + len(optimizers.state())
    assert all(_alignment(value) >= min(own, 64) for value in read)


def _alignment(tensor):
    return tensor.data_ptr() & -tensor.data_ptr()


def test_a_tied_matrix_is_stored_once_and_is_one_parameter_when_read(tmp_path):
    model, _ = write_steps(tmp_path, 1, tie_embeddings=True)
    folder = tmp_path / "step-000001"
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "unembed" in name]  # noqa: SIM118
    again = read_model(folder, model.config)
    before = again(torch.zeros(1, 1, dtype=torch.long))
    with torch.no_grad():
        again.embed.weight[3] += 1
    assert not torch.equal(again(torch.zeros(1, 1, dtype=torch.long))[..., 3], before[..., 3])


@settings(max_examples=150)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(written, name, where, bit):
    path = written / "step-000002" / name
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(where * len(content))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        with pytest.raises(CheckpointError, match=r"found; expected|unreadable"):
            verify_checkpoint(path.parent)
    finally:
        path.write_bytes(content)
    verify_checkpoint(path.parent)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap_with_the_step_before(path):
    path.write_bytes((path.parents[1] / "step-000001" / path.name).read_bytes())


def replace_by_a_link(path):
    """To the same bytes elsewhere: what is there now need not be there later."""
    target = path.rename(path.parents[1] / f"elsewhere-{path.name}")
    path.symlink_to(target)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "lengthened": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "removed": Path.unlink,
    "swapped": swap_with_the_step_before,
    "linked": replace_by_a_link,
}


# White space after JSON changes nothing in it, so a longer manifest says the same as before.
DAMAGED = [(n, d) for n in FILES for d in DAMAGES if (n, d) != ("MANIFEST.json", "lengthened")]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(pair, name, damage):
    DAMAGES[damage](pair / "step-000002" / name)
    folder, (reason,) = newest_valid(pair)
    assert folder == pair / "step-000001"
    blamed = r"\w+\.\w+" if name == "MANIFEST.json" else name  # a wrong manifest blames the files
    assert re.search(rf"step-000002/{blamed}: .*\. Set aside as step-000002\.bad\.$", reason)
    assert (pair / "step-000002.bad").is_dir()
    assert checkpoints(pair) == [folder]


def test_without_a_whole_checkpoint_every_reason_is_said(pair):
    for step in (1, 2):
        (pair / f"step-00000{step}" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint found\. .*000002.*000001"):
        newest_valid(pair)
    with pytest.raises(CheckpointError, match="None was written yet"):
        newest_valid(pair / "nothing")


def test_names_that_are_not_checkpoints_are_not_looked_at(pair):
    for name in ("step-000009.tmp", "step-000009.bad", "step-9", "other"):
        (pair / name).mkdir()
    assert [path.name for path in checkpoints(pair)] == ["step-000002", "step-000001"]


def test_step_1000000_is_newer_than_step_999999(tmp_path):
    for name in ("step-999999", "step-1000000"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1000000", "step-999999"]


@pytest.mark.parametrize(
    ("fields", "tensor"),
    [
        ({"d_model": 32}, "blocks.0.mixer.k_norm.weight"),
        ({"n_layers": 2}, "blocks.1"),
        ({"tie_embeddings": False}, "unembed.weight"),
        ({"vocab_size": 2**31 - 1, "d_model": 2**16}, "blocks.0.mixer.k_norm.weight"),
    ],
)
def test_weights_of_another_config_are_refused_before_memory_is_taken(pair, fields, tensor):
    """The last config has 10^14 weights, so the refusal cannot have come after building it."""
    with pytest.raises(CheckpointError, match=rf"{tensor}.* of shape .* of another model config"):
        read_model(pair / "step-000002", config_of(**fields))


@pytest.mark.parametrize(("best", "kept"), [(None, [5, 4]), (2, [5, 4, 2]), (4, [5, 4])])
def test_the_newest_and_the_best_stay(tmp_path, best, kept):
    manager, model = CheckpointManager(tmp_path, keep=2), model_of()
    for step in range(1, 6):
        manager.save(model, {}, {"step": step}, best_step=best)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-00000{step}" for step in kept]
    for path in checkpoints(tmp_path):
        verify_checkpoint(path)


@pytest.mark.parametrize("by_whom", ["this process", "another"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_damaged_checkpoint_is_not_counted_among_those_that_stay(tmp_path, by_whom, damage):
    """Steps 1 to 3 are there, 3 and then 2 go bad: 1 must not make room for them."""
    manager, model = CheckpointManager(tmp_path, keep=3), model_of()
    for step in (1, 2, 3):
        manager.save(model, {}, {"step": step}, best_step=None)
    for step in (3, 2):
        DAMAGES[damage](tmp_path / f"step-00000{step}" / "model.safetensors")
    if by_whom == "another":
        manager = CheckpointManager(tmp_path, keep=3)
    manager.save(model, {}, {"step": 4}, best_step=None)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["4", "3", "2", "1"]
    manager.save(model, {}, {"step": 5}, best_step=None)
    manager.save(model, {}, {"step": 6}, best_step=None)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["6", "5", "4"]


def test_the_same_step_written_again_replaces_the_old_one(pair):
    model = model_of(seed=9)
    write_checkpoint(pair, model, {}, {"step": 2})
    folder, _ = newest_valid(pair)
    assert read_state(folder) == {"step": 2}
    assert same_bits(read_model(folder, model.config).state_dict(), model.state_dict())


def test_a_step_whose_old_checkpoint_was_moved_aside_is_still_found(pair):
    """As a kill between the two renames leaves it."""
    (pair / "step-000002").rename(pair / "step-000002.old")
    folder, reasons = newest_valid(pair)
    assert (folder.name, reasons) == ("step-000002.old", [])
    assert read_state(folder)["step"] == 2
    write_checkpoint(pair, model_of(), {}, {"step": 2})
    assert sorted(path.name for path in pair.iterdir()) == ["step-000001", "step-000002"]


@pytest.mark.parametrize(
    "content",
    ["[]", "3", "{", '{"step": 3}', "{}", '{"step": "2"}', "[" * 100_000, " " * (1 << 22) + "{}"],
    ids=["list", "number", "torn", "other step", "none", "text", "deep", "huge"],
)
def test_a_forged_state_is_one_sentence_though_its_hash_is_right(pair, content):
    folder = pair / "step-000002"
    (folder / "state.json").write_text(content)
    rehash(folder)
    verify_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"state\.json: unreadable|expected the step in"):
        read_state(folder)


def test_weights_of_another_dtype_are_refused_though_their_hash_is_right(pair):
    folder = pair / "step-000002"
    path = folder / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path)
    rehash(folder)
    verify_checkpoint(folder)
    with pytest.raises(CheckpointError, match="of dtype BF16 found; expected F32"):
        read_model(folder, config_of())


def test_a_link_to_a_checkpoint_elsewhere_is_none(pair, tmp_path):
    elsewhere = (pair / "step-000002").rename(tmp_path / "step-000002")
    (pair / "step-000002").symlink_to(elsewhere)
    assert [path.name for path in checkpoints(pair)] == ["step-000001"]


def rehash(folder):
    """Make the manifest right again, as whoever forges a file would."""
    files = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in FILES[:3]
    }
    (folder / "MANIFEST.json").write_text(json.dumps(files))


def fail(*arguments, **keywords):
    raise WITHOUT_SPACE


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file grow over `size` bytes, as a full disk or a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_one_sentence_and_nothing_torn(parent, error):
    assert "step-000003: the checkpoint could not be written: " in str(error)
    assert str(error).count("\n") == 0
    assert [path.name for path in parent.iterdir() if path.name.startswith("step-000003")] == []
    assert newest_valid(parent) == (parent / "step-000002", [])


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing_torn(pair, size):
    with files_of_at_most(size), pytest.raises(RunError, match="too large") as caught:
        write_checkpoint(pair, model_of(), {}, {"step": 3})
    check_one_sentence_and_nothing_torn(pair, caught.value)


@pytest.mark.parametrize(
    "place", ["pathlib.Path.mkdir", "pathlib.Path.write_text", "os.fsync", "pathlib.Path.rename"]
)
def test_no_space_at_any_point_is_one_sentence_and_leaves_nothing_torn(pair, monkeypatch, place):
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(RunError, match="No space left on device") as caught:
            write_checkpoint(pair, model_of(), {}, {"step": 3})
    check_one_sentence_and_nothing_torn(pair, caught.value)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")
def test_every_file_and_folder_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """A rename may reach the disk before the content does, and a power cut between the two."""
    done, fsync, rename = [], os.fsync, Path.rename

    def noted_fsync(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(path, target):
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    write_checkpoint(tmp_path / "checkpoints", model_of(), {}, {"step": 3})
    at = done.index("rename")
    assert sorted(done[:at]) == sorted([*FILES, "step-000003.tmp"])
    assert done.index("step-000003.tmp") == at - 1
    assert done[at + 1 :] == ["checkpoints", tmp_path.name]


def test_a_manifest_cannot_lead_outside_the_folder(pair):
    """Only the three names are looked up, so an entry for another path is of no consequence."""
    manifest = pair / "step-000002" / "MANIFEST.json"
    entries = json.loads(manifest.read_text())
    entries["../../outside"] = entries.pop("state.json")
    manifest.write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match="unreadable"):
        verify_checkpoint(manifest.parent)
