import json
from pathlib import Path

import pytest
from small_run import SMALL, TEXT


def test_a_text_becomes_a_run_whose_path_is_all_that_stdout_gets(assay, text):
    result = assay("train", text, *SMALL)
    assert result.status == 0
    assert result.stdout == "runs/cats-1\n"
    assert "bits per byte" in result.stderr
    assert "ln V" in result.stderr
    assert Path("runs/cats-1/curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_line_names_what_takes_the_steps(assay, text, native):
    told = assay("train", text, *SMALL, "train.backend=native", "train.precision=fp32").stderr
    assert "in fp32, C++ kernels, " in " ".join(told.split())
    told = assay("train", text, *SMALL, "train.backend=torch", "train.attention=blocks").stderr
    assert ", blocks attention, " in " ".join(told.split())


def test_names_count_up_and_a_taken_one_is_never_overwritten(assay, text):
    assay("train", text, *SMALL)
    assert assay("train", text, *SMALL).stdout == "runs/cats-2\n"
    before = Path("runs/cats-1/config.json").stat().st_mtime_ns
    result = assay("train", text, *SMALL, "--name", "cats-1")
    assert result.status == 1
    assert "never overwritten" in result.stderr
    assert "assay resume cats-1" in result.stderr
    assert Path("runs/cats-1/config.json").stat().st_mtime_ns == before


def test_the_articles_appendix_is_told_that_it_echoes_its_input(assay, text):
    result = assay("train", text, "--preset", "minigpt", "data.tokenizer=byte", "model.d_model=64",
                   "model.max_seq_len=32", "train.steps=1")  # fmt: skip
    assert result.status == 0
    assert "repeats its input" in result.stderr


def test_a_config_file_is_laid_under_the_changes(assay, text):
    Path("a.toml").write_text('[model]\nnorm = "sigma"\nd_model = 32\n[train]\nsteps = 2\n')
    result = assay("show", "a.toml", text, "model.d_model=8")
    config = json.loads(result.stdout)
    assert config["model"]["norm"]["kind"] == "sigma"
    assert (config["model"]["d_model"], config["train"]["steps"]) == (8, 2)
    assert config["data"]["text"] == [str(text)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model.n_layer=2"], "model.n_layer: unknown field. Did you mean 'n_layers'?"),
        (["model.n_heads=2"], "Did you mean 'model.mixer.n_heads'?"),
        (["steps=3"], "steps: unknown field. Did you mean 'train.steps'?"),
        (["model.norm=rsm"], "model.norm: unknown kind 'rsm'"),
        (["model.d_model=big"], "model.d_model: 'big' found"),
        (["model.d_model=12", "model.mixer.n_heads=4"], "even number"),
        (["model.mixer=none"], "rope turns the queries and keys of attention"),
        (["train.seq_len=9999"], "train.seq_len: 9999 found; expected at most"),
        (["train.device=abacus"], "train.device: 'abacus' found"),
        (["--preset", "gpt9"], "--preset: 'gpt9' found"),
        (["missing.toml"], "missing.toml: No such file"),
        (["train.optimizer.lr=nan"], "train.optimizer.lr: nan found"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(assay, text, arguments, told):
    result = assay("train", text, *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: None, "nowhere.txt"),
        (lambda p: p.write_text(""), "no text in"),
        (lambda p: p.write_text("too short"), "expected at least"),
        (lambda p: p.write_bytes(b"fine so far \xff\xfe" * 300), "offset 12"),
    ],
)
def test_a_text_that_will_not_do_is_one_line_and_leaves_no_run(assay, make, told):
    make(Path("nowhere.txt"))
    result = assay("train", "nowhere.txt", *SMALL)
    assert (result.status, result.stdout) == (1, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()


def test_a_diverging_run_is_told_by_step_and_layer(assay, text):
    result = assay("train", text, *SMALL, "train.optimizer.lr=1e30", "train.clip_norm=null",
                   "model.norm=none", "--name", "wild")  # fmt: skip
    assert result.status == 1
    assert "step " in result.stderr
    assert "expected a finite number" in result.stderr
    assert json.loads(Path("runs/wild/manifest.json").read_text())["status"] == "diverged"


def test_runs_lists_them_and_show_tells_one(assay, trained):
    row = json.loads(assay("runs", "--json").stdout)
    assert (row["run"], row["state"], row["steps"]) == ("cats", "finished", 6)
    assert "cats" in assay("runs").stdout
    shown = json.loads(assay("show", "cats").stdout)
    assert shown["config"]["model"]["vocab_size"] == len(set(TEXT))
    assert shown["result"]["val_loss_nats"] > 0


def test_a_finished_run_is_not_resumed(assay, trained):
    result = assay("resume", "cats")
    assert result.status == 1
    assert "all 6 steps are done" in result.stderr


def test_a_run_that_is_not_there_is_told_with_those_that_are(assay, trained):
    result = assay("resume", "dogs")
    assert result.status == 1
    assert "dogs" in result.stderr
    assert "cats" in result.stderr
