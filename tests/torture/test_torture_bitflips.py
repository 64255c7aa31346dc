"""Checkpoints damaged a bit, a byte or a file at a time: none is used, and the one before is."""

import itertools
import random
from collections import Counter

import pytest
import torch
from hostile_run import BEFORE, NEWEST, begun_run, files_of, lay_out, without_timing
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from assay.errors import CheckpointError
from assay.runs.run import Run

FILES = ("model.safetensors", "optim.safetensors", "state.json", "MANIFEST.json")


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """The files of a run with checkpoints of steps 2 and 4, and the weights of both."""
    without_timing(monkeypatch, tmp_path)
    run = begun_run(tmp_path)
    weights = {step: load_file(run.folder.path / step / FILES[0]) for step in (BEFORE, NEWEST)}
    return files_of(run.folder.path), weights


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def flipped(content, offset, bit):
    return content[:offset] + bytes([content[offset] ^ (1 << bit)]) + content[offset + 1 :]


def flips(files, rng, each):
    for name in FILES:
        content = files[f"{NEWEST}/{name}"]
        for _ in range(each):
            offset, bit = rng.randrange(len(content)), rng.randrange(8)
            yield name, {f"{NEWEST}/{name}": flipped(content, offset, bit)}


def truncations(files, rng, each):
    for name in FILES:
        content = files[f"{NEWEST}/{name}"]
        for _ in range(each):
            yield name, {f"{NEWEST}/{name}": content[: rng.randrange(len(content))]}


def swaps(files):
    """Every choice of files taken from the step before, but none and all of them."""
    for size in (1, 2, 3):
        for names in itertools.combinations(FILES, size):
            taken = {f"{NEWEST}/{name}": files[f"{BEFORE}/{name}"] for name in names}
            yield "+".join(names), taken


def all_swapped(files):
    """A whole checkpoint under the name of another step: its hashes fit, its step does not."""
    return {f"{NEWEST}/{name}": files[f"{BEFORE}/{name}"] for name in FILES}


def removals():
    for size in (1, 2, 3):
        for names in itertools.combinations(FILES, size):
            yield "+".join(names), {f"{NEWEST}/{name}": None for name in names}


def damaged(files, change):
    kept = files | change
    return {name: content for name, content in kept.items() if content is not None}


def loads_the_one_before(folder, weights):
    """Whether the newest checkpoint is set aside in words and the one before is what is used."""
    run = Run.open(folder)
    model, _ = run.load()
    aside = any("step-000004" in note and "Set aside" in note for note in run.notes)
    return aside and same(model.state_dict(), weights[BEFORE])


def test_every_damage_is_found_before_a_weight_is_used(whole, tmp_path, load, record):
    files, weights = whole
    rng = random.Random(4)
    each, cuts = load(12, 1000), load(5, 200)
    cases = {
        "bits flipped": list(flips(files, rng, each)),
        "truncated": list(truncations(files, rng, cuts)),
        "swapped with the step before": list(swaps(files)),
        "missing": list(removals()),
    }
    loads, found = Counter(), Counter()
    for kind, changes in cases.items():
        for name, change in changes:
            folder = lay_out(damaged(files, change), tmp_path / "damaged")
            loads[kind] += 1
            found[kind] += loads_the_one_before(folder, weights)
            assert found[kind] == loads[kind], f"{kind}: {name} was not found"
    silent = sum(loads_silently(change, weights) for _, change in cases["bits flipped"])
    said = ", ".join(f"{kind} {count}" for kind, count in loads.items())
    record(
        "bitflips",
        f"{sum(loads.values())} loads: {said}",
        f"{sum(found.values())} found before a weight was used, each falling back to the "
        f"checkpoint before; of {each} flips in the weights safetensors alone takes {silent} in "
        "silence for other weights",
    )
    assert silent  # the control: without hashes such files load


def loads_silently(change, weights):
    """Whether safetensors itself takes damaged weights for weights, which are others."""
    content = change.get(f"{NEWEST}/{FILES[0]}")
    if content is None:
        return False
    try:
        return not same(load(content), weights[NEWEST])
    except (SafetensorError, KeyError):
        return False


def test_a_whole_checkpoint_under_another_steps_name_is_refused(whole, tmp_path):
    files, _ = whole
    folder = lay_out(files | all_swapped(files), tmp_path / "renamed")
    with pytest.raises(CheckpointError, match="holds step 2"):
        Run.open(folder).load()


def test_an_undamaged_checkpoint_is_what_is_used(whole, tmp_path):
    """Else everything above could be found for another reason."""
    files, weights = whole
    run = Run.open(lay_out(files, tmp_path / "whole"))
    model, _ = run.load()
    assert same(model.state_dict(), weights[NEWEST])
    assert run.notes == []
