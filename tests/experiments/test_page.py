"""The page of a study, made of results that are made up."""

import json
import re

import pytest
from small_study import Told

from assay.config import RunConfig
from assay.experiments import figure, page, report
from assay.experiments.design import Design, grid
from assay.experiments.results import Results
from assay.experiments.study_file import StudyRecord

ARMS = grid({"model.norm": ["rms", "layer", "none"]})
LOSSES = {
    ARMS[0].name: [2.0, 2.1, 2.2],
    ARMS[1].name: [1.9, 2.01, 2.1],
    ARMS[2].name: [2.5, 2.6, 9],
}


@pytest.fixture
def results(tmp_path):
    keys = {arm: {str(n): f"{n:032x}" for n in range(3)} for arm in LOSSES}
    record = StudyRecord(
        base={}, arms=(), seeds=(0, 1, 2), metric="val_loss_nats", delta=None,
        code_sha256="0" * 64, keys=keys,
    )  # fmt: skip
    design = Design(RunConfig(), ARMS, [0, 1, 2])
    study = Told(tmp_path, "a <b> & c", design, record, LOSSES)
    return Results.of(study)


@pytest.mark.slow
def test_what_draws_figures_is_made_once_and_needs_no_cache(tmp_path, monkeypatch):
    """A cache inside a file can neither be read nor written."""
    fresh = figure.library.__wrapped__
    made = []
    bundle = figure.vl_convert.javascript_bundle
    monkeypatch.setattr(
        figure.vl_convert, "javascript_bundle", lambda *a, **k: made.append(a) or bundle(*a, **k)
    )
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    expected = fresh()
    assert "vegaEmbed" in expected
    assert fresh() == expected
    assert len(made) == 1
    (kept,) = tmp_path.glob("cache/figures/*/library.js")
    kept.write_text("edited")
    assert fresh() == expected
    assert len(made) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file"))
    assert fresh() == expected
    assert len(made) == 3


def test_a_page_needs_nothing_but_itself(results):
    made = page.html(results)
    assert not re.search(
        r"<(script|img|iframe)[^>]+src=|<link|@import|url\(", made.split("<script>")[0]
    )
    assert made.count("<script>") == made.count("</script>") == 2
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in made


def test_every_number_and_run_is_on_the_page_and_in_the_tables(results):
    made = page.html(results)
    for row in (*report.arm_rows(results)[1:], *report.run_rows(results)[1:]):
        for cell in row[:-1]:
            assert f"<td>{cell}</td>" in made
    assert f'href="../../cells/{ARMS[0].name} 1/config.json"' in made


def test_the_figure_holds_every_comparison_and_seed(results):
    spec = figure.differences_figure(results)
    values = [layer["data"]["values"] for layer in spec["layer"]]
    assert [row["arm"] for row in values[2]] == [arm.name for arm in ARMS[1:]]
    found = {(row["arm"], row["seed"]): row["difference"] for row in values[1]}
    assert found[ARMS[1].name, 2] == pytest.approx(-0.1)
    assert len(found) == 6
    for row in values[2]:
        assert row["low"] < row["mean"] < row["high"]
    assert json.loads(json.dumps(spec)) == spec


def test_the_figure_is_drawn(results):
    spec = figure.differences_figure(results)
    drawn = figure.svg(spec)
    assert drawn.startswith("<svg")
    assert "nats per token (left is better)" in drawn
