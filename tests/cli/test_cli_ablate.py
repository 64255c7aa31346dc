import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import SMALL, TEXT
from test_cli_docs import ROOT, commands, plugin_of_the_page
from typer.main import get_command

from assay.cli import app
from assay.cli.ablate_fields import values_of
from caches import cache_in


@pytest.fixture
def process(tmp_path):
    """Run the command line as a process, which starts workers of its own."""
    (tmp_path / "cats.txt").write_text(TEXT)
    env = os.environ | {"ASSAY_CACHE": cache_in(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "assay", *arguments],
            capture_output=True, text=True, cwd=tmp_path, env=env, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_study_is_planned_run_told_and_not_run_twice(tmp_path, process):
    command = ["ablate", "model.norm=rms,none", "cats.txt", *SMALL, "--seeds", "2"]
    plan = process(*command, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "2 arms x 2 seeds = 4 runs, 0 of them made already" in plan.stderr
    assert "2 seeds can see a difference of" in plan.stderr
    assert not (tmp_path / "lab").exists()
    done = process(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lab/studies/norm\n"
    assert done.stderr.count("done after") == 4
    assert "model.norm=none: " in done.stderr
    assert "| model.norm=none |" in (tmp_path / "lab/studies/norm/report.md").read_text()
    again = process(*command)
    assert "4 of them made already" in again.stderr
    assert "done after" not in again.stderr
    assert again.returncode == 0


@pytest.mark.slow
def test_arms_are_matched_tuned_given_seeds_and_judged_by_document(tmp_path, process):
    """All stages of one command; given again, it finds every run made and says the same."""
    command = [
        *("ablate", "model.tie_embeddings=true,false", "cats.txt", *SMALL, "--seeds", "2"),
        *("--match", "parameters", "--match-by", "model.mlp.d_ff"),
        *("--tune", "train.optimizer.lr=1e-4,4e-3", "--until-width", "1e-6", "--most-seeds", "3"),
        "--documents",
    ]
    done = process(*command)
    assert done.returncode == 0, done.stderr
    for said in (
        "tie_embeddings-tuning: 4 arms x 2 seeds = 8 runs, 0 of them made already",
        "tie_embeddings-first: 2 arms x 2 seeds = 4 runs",
        "--most-seeds allows 3",
        "lab/studies/tie_embeddings: 2 arms x 3 seeds = 6 runs, 4 of them made already",
        "matched in parameters by model.mlp.d_ff=",
        "stretches of the validation text resampled",
    ):
        assert said in done.stderr, said
    report = tmp_path / "lab/studies/tie_embeddings/report.md"
    page = report.read_text()
    for said in ("**Not controlled**", "Tuned: ", "Stein's rule: 2 first", "--most-seeds 3 holds"):
        assert said in page, said
    again = process(*command)
    assert again.returncode == 0
    assert "done after" not in again.stderr
    assert report.read_text() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.norm=rms"], "fields: none with several values found"),
        (["model.nrom=rms,none"], "model.nrom: unknown field"),
        (["model.norm=rms,rms"], "are one config"),
        (["sampling.temperature=0.5,1.0"], "it changes nothing that a result depends on"),
        (["model.norm=rms,none", "model.norm=rms,layer"], "model.norm: values found twice"),
        (["model.norm=rms,none", "--metric", "accuracy"], "--metric: 'accuracy' found"),
        (["model.norm=rms,none", "--delta", "-1"], "--delta: -1.0 found"),
        (["model.norm=rms,none", "--noise", "nan"], "--noise: nan found"),
        (["model.norm=rms,none", "--until-width", "0"], "--until-width: 0.0 found"),
        (["model.norm=rms,none", "--name", "../up"], "run name: '../up' found"),
        (["model.norm=rms,none", "--match-by", "model.d_model"], "found without --match"),
        (["model.norm=rms,none", "--match", "flops", "--match-by", "model.bias"], "model.bias: "),
        (["model.norm=rms,none", "--tune", "train.optimizer.lr=1e-3"], "1 value of"),
        (["model.norm=rms,none", "--seeds", "1"], "seeds: [0] found; expected at least 2"),
        (["model.norm=rms,none", "--seeds", "-3"], "seeds: [] found; expected at least 2"),
        (
            ["model.norm=rms,none", "--tune", "train.steps=5,6", "--tune-seeds", "1"],
            "seeds: [1000000] found; expected at least 2",
        ),
        (["model.norm=rms,none", "--tune", "lr"], "0 value of lr found"),
        (["model.norm=rms,none", "--tune", "model.norm=rms,none"], "are compared or matched by"),
        (
            ["model.norm=rms,none", "--until-width", "0.1", "--most-seeds", "2"],
            "--most-seeds: 2 found; expected at least the 3",
        ),
        (["train.optimizer.lr=1e-3,2e-3", "--tune", "train.optimizer.lr=1,2"], "are compared"),
    ],
)
def test_a_mistake_is_one_line(assay, text, arguments, message):
    found = assay("ablate", *arguments, text, *SMALL, "--plan")
    assert found.status == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert not Path("lab").exists()


def test_a_plan_tells_of_every_stage_and_writes_nothing(assay, text):
    found = assay(
        *("ablate", "model.n_layers=2,1", text, *SMALL, "train.steps=40", "--plan"),
        *("--match", "flops", "--tune", "train.optimizer.lr=1e-3,4e-3", "--until-width", "0.02"),
    )
    assert found.status == 0, found.stderr
    for said in (
        "n_layers-tuning: 4 arms x 2 seeds = 8 runs, 0 of them made already",
        "after these 3 first seeds, as many more as Stein's rule asks for +- 0.02, 20 in all",
        "model.n_layers=1: matched in training FLOPs by train.steps=",
        "n_layers: 2 arms x 3 seeds = 6 runs",
    ):
        assert said in found.stderr, found.stderr
    assert not Path("lab").exists()


def shown():
    return [shown for shown in commands() if shown.values[0].startswith("assay ablate")]


def test_the_page_shows_every_option():
    assert len(shown()) >= 10
    page = (ROOT / "docs/ablate.md").read_text()
    options = [p.name for p in get_command(app).commands["ablate"].params if p.opts[0][:2] == "--"]
    said = [name for name in options if f"--{name.replace('_', '-')}" in page]
    assert set(options) - set(said) <= {"preset", "lab", "plan_only"}
    assert "--plan" in page


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A cache for all commands shown: most of them take the same text."""
    return cache_in(tmp_path_factory.mktemp("shown"))


@pytest.mark.slow
@pytest.mark.parametrize("command", shown())
def test_what_the_page_shows_can_be_planned(assay, text, prepared, monkeypatch, command):
    """Every command of page and help, on a text of the reader's and models that are small."""
    monkeypatch.setenv("ASSAY_CACHE", prepared)
    text.rename("my_novel.txt")
    shutil.copy("my_novel.txt", "my.txt")
    Path("recipes").symlink_to(ROOT / "recipes")
    Path("max_norm.py").write_text(plugin_of_the_page(), encoding="utf-8")
    corpus = Path("corpora/tinyshakespeare/input.txt")
    corpus.parent.mkdir(parents=True)
    shutil.copy("my_novel.txt", corpus)
    words = shlex.split(command.replace("$ASSAY_DATA", "corpora"))[1:]
    arguments = [a for a in words if a != "--plan"]
    small = ("model.d_model=64", "model.max_seq_len=32", "train.batch_size=2")
    found = assay(*arguments, *small, "--plan", "--workers", "1")
    assert found.status == 0, found.stderr
    assert "seeds can see a difference of" in found.stderr


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("layer,rms,none", ["layer", "rms", "none"]),
        ("1e-3", [0.001]),
        ('{kind = "layer", eps = 1e-3},rms', [{"kind": "layer", "eps": 0.001}, "rms"]),
        ("[1, 2],[3]", [[1, 2], [3]]),
        ("'a,b',c", ["a,b", "c"]),
        ("null,8", [None, 8]),
    ],
)
def test_values_are_cut_at_the_commas_between_them(text, values):
    assert values_of(f"model.norm={text}") == ("model.norm", values)
