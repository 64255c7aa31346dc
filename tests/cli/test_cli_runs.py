"""Runs side by side."""

import json
from pathlib import Path

import pytest
from small_run import SMALL


@pytest.fixture
def three(assay, text):
    changes = {"a": "model.norm=rms", "b": "model.norm=none", "c": "model.n_layers=2"}
    for name, change in changes.items():
        assert assay("train", text, *SMALL, change, "--name", name).status == 0
    return list(changes)


def test_runs_are_compared_in_the_fields_in_which_they_differ_in_size_and_result(assay, three):
    found = assay("runs", *three, "--json")
    assert found.status == 0, found.stderr
    a, b, c = (json.loads(line) for line in found.stdout.splitlines())
    assert [x["model.n_layers"] for x in (a, b, c)] == [1, 1, 2]
    assert [x["model.norm.kind"] for x in (a, b, c)] == ["rms", "none", "rms"]
    assert b["model.norm.eps"] is None
    assert "train.steps" not in a
    assert b["parameters"] < a["parameters"] < c["parameters"]
    assert a["training FLOPs"] == b["training FLOPs"] < c["training FLOPs"]
    assert a["training tokens"] == 6 * 4 * 16
    told = assay("show", "a").stdout + assay("runs", "--json").stdout
    assert str(a["val_loss_nats"]) in told
    table = assay("runs", *three).stdout
    assert table.splitlines()[0].split() == three
    assert f"{c['parameters']:,}" in table
    assert f"{c['val_loss_nats']:.4f}" in table


def test_one_run_alone_or_one_that_is_not_there_is_one_sentence(assay, trained):
    alone = assay("runs", trained)
    assert alone.status == 2
    assert "one run found, cats; expected at least two to compare" in alone.stderr
    missing = assay("runs", trained, "dogs")
    assert missing.status == 1
    assert "dogs: no run of this name or path found" in missing.stderr


def test_a_curve_is_drawn_when_it_is_asked_for(assay, trained):
    curve = Path("runs", trained, "curve.png")
    curve.unlink()
    drawn = assay("runs", trained, "--curve")
    assert drawn.status == 0
    assert drawn.stdout == f"{curve}\n"
    assert curve.read_bytes().startswith(b"\x89PNG")
    curve.with_name("metrics.jsonl").unlink()
    empty = assay("runs", trained, "--curve")
    assert empty.status == 1
    assert "metrics.jsonl: no loss found to draw; expected a run that was trained" in empty.stderr
    nothing = assay("runs", "--curve")
    assert nothing.status == 2
    assert "--curve found no run to draw" in nothing.stderr
