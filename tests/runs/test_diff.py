import json

import pytest
from tiny_run import config_of, finish

import assay.cli
from assay.runs.diff import differences
from assay.runs.run import Run


@pytest.fixture
def trio(tmp_path, text):
    """A run, the same once more, and one that differs in seed and norm."""
    changes = [{}, {}, {"train__seed": 1, "model__norm": "none"}]
    runs = []
    for number, change in enumerate(changes):
        runs.append(Run.create(config_of(text, **change), tmp_path / f"run-{number}"))
        finish(runs[-1])
    return runs


def named(one, other):
    return {
        (found.part, found.name): (found.first, found.second) for found in differences(one, other)
    }


def test_a_run_made_again_differs_in_nothing(trio):
    assert named(trio[0], trio[0]) == {}
    assert named(trio[0], trio[1]) == {}


def test_every_part_in_which_two_runs_differ_is_named_with_both_values(trio):
    found = named(trio[0], trio[2])
    assert found["config", "train.seed"] == (0, 1)
    assert found["config", "model.norm.kind"] == ("rms", "none")
    assert found["config", "model.norm.eps"][1] is None
    sizes = found["size", "parameters"]
    assert sizes[0] - sizes[1] == 3 * 16  # the scales of three norms of width 16
    assert found["result", "val_loss_nats"][0] != found["result", "val_loss_nats"][1]
    assert found["sample", "text"][0] != found["sample", "text"][1]
    assert {part for part, _ in found} == {"config", "size", "result", "sample"}


def test_another_text_torch_or_machine_is_named(trio):
    for run, part, name, value in (
        (trio[1], "data", "corpus_sha256", "0" * 64),
        (trio[1], "packages", "torch", "1.0"),
        (trio[1], "machine", "threads", 64),
    ):
        path = run.folder.path / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest[part][name] = value
        path.write_text(json.dumps(manifest))
    found = named(trio[0], trio[1])
    assert found.keys() == {
        ("data", "corpus_sha256"), ("packages", "torch"), ("machine", "threads")
    }  # fmt: skip


@pytest.mark.slow
def test_the_command_says_so_and_ends_as_diff_does(trio, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["assay", "diff", *arguments, "--runs", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            assay.cli.main()
        return ended.value.code, capsys.readouterr().out

    assert call("run-0", "run-1") == (0, "")
    status, told = call("run-0", "run-2")
    assert status == 1
    assert "model.norm.kind              rms | none" in told
    assert "letters" in told
    status, told = call("run-0", "run-2", "--json")
    assert {json.loads(line)["part"] for line in told.splitlines()} >= {"config", "result"}
