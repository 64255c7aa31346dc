import json
from pathlib import Path

import pytest
from small_run import SMALL

from assay.native import build


def test_the_prompt_comes_first_and_a_seed_repeats(assay, trained):
    first = assay("generate", trained, "-p", "the cat", "-m", 20, "--seed", 3)
    assert first.status == 0
    assert first.stdout.startswith("the cat")
    assert len(first.stdout) == len("the cat") + 20 + 1
    assert assay("generate", trained, "-p", "the cat", "-m", 20, "--seed", 3).stdout == first.stdout
    assert assay("generate", trained, "-p", "the cat", "-m", 20, "--seed", 4).stdout != first.stdout


@pytest.mark.parametrize("m", [5, 40])  # 40 goes past the window of 16
def test_without_a_cache_the_text_is_the_same(assay, trained, m):
    plain = ["generate", trained, "-p", "the dog", "-m", m]
    assert assay(*plain, "--no-cache").stdout == assay(*plain).stdout


def test_drafts_from_the_text_leave_the_text_as_it_is(assay, trained):
    plain = ["generate", trained, "-p", "the cat sat on", "-m", 60, "-t", 0.3]
    assert assay(*plain, "--lookup", 4).stdout == assay(*plain).stdout


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_rounded_weights_write_as_much(assay, trained, weights):
    result = assay("generate", trained, "-p", "the", "-m", 20, "--weights", weights)
    assert result.status == 0
    assert len(result.stdout) == len("the") + 20 + 1


def test_a_machine_without_a_compiler_is_told_once(assay, trained, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    build.take(None)
    result = assay("generate", trained, "-p", "the", "-m", 5)
    build.take(None)
    assert result.status == 0
    assert result.stderr.count("PyTorch computes, which is slower") == 1


@pytest.mark.slow
def test_many_prompts_and_samples_as_json(assay, trained):
    result = assay("generate", trained, "-p", "the", "-p", "a d", "-n", 3, "-m", 8, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        (prompt, sample) for prompt in ("the", "a d") for sample in range(3)
    ]
    alone = assay("generate", trained, "-p", "the", "-n", 3, "-m", 8, "--json")
    assert alone.stdout.splitlines() == result.stdout.splitlines()[:3]


def test_greedy_is_temperature_0(assay, trained):
    one = assay("generate", trained, "-p", "the", "-m", 12, "-t", 0, "--seed", 1)
    two = assay("generate", trained, "-p", "the", "-m", 12, "-t", 0, "--seed", 2)
    assert one.stdout == two.stdout


def test_a_stop_string_ends_the_text_and_is_not_shown(assay, trained):
    whole = assay("generate", trained, "-p", "the", "-m", 60, "--json").stdout
    text = json.loads(whole)["text"]
    stop = text[20:23]
    cut = assay("generate", trained, "-p", "the", "-m", 60, "--stop", stop, "--json").stdout
    assert json.loads(cut)["text"] == text.partition(stop)[0]


def test_an_empty_prompt_writes_all_the_same(assay, text, tmp_path):
    assay("train", text, *SMALL, "data.tokenizer=byte", "--name", "bytes")
    assert len(assay("generate", "bytes", "-m", 10).stdout) > 1


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["-p", "ÀÉ"], 1, "À"),
        (["sampling.temperature=-1"], 2, "sampling.temperature: -1 found"),
        (["--top-p", "1.5"], 2, "sampling.top_p: 1.5 found"),
        (["model.d_model=3"], 2, "only sampling.*"),
        (["once upon a time"], 2, "--prompt"),
        (["--window", "rolling"], 2, "rolling"),
        (["--weights", "int4"], 2, "weights: 'int4' found"),
        (["--no-cache", "--lookup", "3"], 2, "lookup: 3 found"),
        (["--prompt-file", "none.txt"], 2, "none.txt"),
    ],
)
def test_a_mistake_is_one_line(assay, trained, arguments, status, told):
    result = assay("generate", trained, *arguments)
    assert result.status == status
    assert told in result.stderr
    assert result.stdout == ""


def test_prompts_from_a_file(assay, trained, tmp_path):
    (tmp_path / "p.txt").write_text("the cat\nthe dog\n")
    result = assay("generate", trained, "--prompt-file", "p.txt", "-m", 4, "--json")
    assert [json.loads(line)["prompt"] for line in result.stdout.splitlines()] == [
        "the cat",
        "the dog",
    ]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used_and_said(assay, text):
    settings = [*SMALL, "train.checkpoint_every=3", "train.keep_checkpoints=2"]
    assay("train", text, *settings, "--name", "hurt")
    newest = Path("runs/hurt/checkpoints/step-000006/model.safetensors")
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    result = assay("generate", "hurt", "-p", "the", "-m", 5)
    assert result.status == 0
    assert "step-000006" in result.stderr
    assert "Set aside" in result.stderr
    assert result.stdout.startswith("the")
