"""A run folder that came from somebody else: looked at, and refused before it can do harm."""

import json
import os

import pytest
from tiny_run import config_of, finish, stopping_at

from assay.errors import AssayError, RunError
from assay.runs.folder import RunFolder
from assay.runs.run import Run


@pytest.fixture
def run(tmp_path, text):
    begun = Run.create(config_of(text), tmp_path / "runs" / "first")
    finish(begun, stop=stopping_at(4))
    return begun


def refused(path, match):
    with pytest.raises(AssayError, match=match) as caught:
        Run.open(path)
    assert "\n" not in str(caught.value)


INSIDE = [
    "config.json",
    "manifest.json",
    "metrics.jsonl",
    "timings.jsonl",
    "tokenizer",
    "tokenizer/chars.json",
    "checkpoints",
    "checkpoints/step-000004",
    "checkpoints/step-000004/model.safetensors",
    "checkpoints/step-000006.tmp",
    "samples",
    "curve.png",
    "tensorboard",
    "metrics.tmp",
    ".lock",
]


@pytest.mark.parametrize("name", INSIDE)
def test_a_link_out_of_a_run_is_refused_and_what_it_leads_to_is_left_alone(run, tmp_path, name):
    """Even one to a copy of what was there: tomorrow something else may be in its place."""
    path, outside = run.folder.path / name, tmp_path / "outside"
    if os.path.lexists(path):
        path.rename(outside)
    else:
        outside.write_text("mine")
    before = outside.stat().st_mtime_ns
    path.symlink_to(outside)
    refused(run.folder.path, "leads out of the run's folder")
    assert outside.stat().st_mtime_ns == before


def test_a_link_to_something_inside_a_run_is_fine(run):
    (run.folder.path / "newest").symlink_to("checkpoints/step-000004")
    assert Run.open(run.folder.path).config == run.config


@pytest.mark.parametrize("name", ["metrics.jsonl", "manifest.json", "curve.png", "anything"])
def test_a_pipe_in_a_run_is_refused_and_not_waited_for(run, name):
    path = run.folder.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    refused(run.folder.path, "a pipe or a device found")


def test_a_pipe_for_a_config_is_no_run(run):
    (run.folder.path / "config.json").unlink()
    os.mkfifo(run.folder.path / "config.json")
    refused(run.folder.path, "no run of this name or path found")


def test_a_name_is_looked_up_and_never_joined_to_the_folder_of_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "inner").mkdir()
    for name in ("../runs/first", "inner/../first", "./first", "first/."):
        with pytest.raises(RunError, match="no run of this name or path"):
            Run.open(name, root=tmp_path / "runs" / "inner")
    assert Run.open("runs/first", root=tmp_path / "nowhere").config == run.config  # a path as typed
    assert Run.open("first", root=tmp_path / "runs").config == run.config


def test_a_name_that_is_a_link_out_of_the_folder_of_runs_is_opened_by_its_path_only(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked").symlink_to(run.folder.path)
    with pytest.raises(RunError, match=r"a link to .* Name the run by its path"):
        Run.open("linked", root=elsewhere)
    assert Run.open(elsewhere / "linked").config == run.config


def test_a_folder_of_runs_that_is_itself_a_link_is_fine(run, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert Run.open("first", root=tmp_path / "link").config == run.config


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_file_too_large_to_be_honest_is_not_read(run, name):
    with (run.folder.path / name).open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(
        RunError, match=rf"{name}: unreadable \(8589934592 bytes found; expected at"
    ):
        Run.open(run.folder.path).folder.read_manifest()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.train.tokens", "\x1b[2J"),
        ("data.val", None),
        ("machine.threads", "two"),
        ("machine.attention", "mine"),
        ("machine.compiled", 1),
        ("packages.torch", None),
        ("stretches", [1]),
        ("notes", [None]),
        ("started", {}),
        ("result", {"val_loss_nats": "low"}),
    ],
)
def test_a_manifest_of_other_types_is_refused_at_its_place(run, place, value):
    manifest = json.loads((run.folder.path / "manifest.json").read_text())
    *parents, leaf = place.split(".")
    node = manifest
    for name in parents:
        node = node[name]
    node[leaf] = value
    (run.folder.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        RunError, match=rf"manifest\.json: {place}.* found; .* The file was damaged"
    ):
        run.folder.read_manifest()


def test_a_manifest_with_an_infinite_perplexity_is_read_back(run):
    manifest = run.folder.read_manifest() | {"result": {"val_perplexity": float("inf")}}
    run.folder.write_json("manifest.json", manifest)
    assert run.folder.read_manifest() == manifest


def test_what_could_not_be_read_back_is_not_written(run):
    before = run.folder.read_manifest()
    with pytest.raises(RunError, match=r"bytes to write; expected at most .* Name a folder"):
        run.folder.write_json("manifest.json", before | {"notes": ["x" * (1 << 23)]})
    assert run.folder.read_manifest() == before


def test_a_file_is_on_the_disk_and_so_is_its_name_when_it_was_written(run, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted_replace(old, new):
        done.append("replace")
        replace(old, new)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc/self/fd")
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run.folder.write_json("manifest.json", run.folder.read_manifest())
    temporary, *rest = done
    assert temporary.startswith("manifest.")
    assert rest == ["replace", "first"]


def test_what_a_killed_writer_left_is_cleared_by_the_next(run):
    left = run.folder.path / "manifest.4194303.tmp"
    left.write_text("{")
    run.folder.write_json("manifest.json", run.folder.read_manifest())
    assert sorted(path.name for path in run.folder.path.glob("manifest*")) == ["manifest.json"]


def test_every_run_is_listed_however_strange_its_neighbours(run, tmp_path):
    root = tmp_path / "runs"
    os.mkfifo(root / "pipe")
    (root / "odd").mkdir()
    os.mkfifo(root / "odd" / "config.json")
    (root / "loop").symlink_to("loop")
    assert [found.path.name for found in RunFolder.all_under(root)] == ["first"]
