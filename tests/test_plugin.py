"""A stranger's variant in the stranger's file: loaded by the user's word, recorded, asked for."""

import json
import os
import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from assay import plugin
from assay.cli import app
from assay.config import RunConfig
from assay.count import UncountedError, count
from assay.errors import ConfigError, RunError
from assay.experiments.keys import Keys
from assay.experiments.tasks.train import Train
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import NORMS, NormVariant
from assay.runs.run import Run
from assay.schema import decode, override

MINE = '''
"""A norm by the largest magnitude."""
from typing import Literal

import torch
from torch import nn

from assay.nn.norm import NormVariant


class MaxNorm(nn.Module):
    def __init__(self, d_model, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.full((d_model,), gain))

    def forward(self, x):
        """Scale."""
        return (x / (x.abs().amax(-1, keepdim=True) + 1e-6) * self.gain).to(x.dtype)


class MaxNormConfig(NormVariant):
    kind: Literal["{kind}"] = "{kind}"
    gain: float = 1.5

    def build(self, d_model):
        return MaxNorm(d_model, self.gain)
'''
TEXT = "the quick brown fox jumps over the lazy dog. " * 60
TINY = (
    *("model.d_model=32", "model.n_layers=1", "model.max_seq_len=16", "model.mixer.n_heads=2"),
    *("data.tokenizer=byte", "train.batch_size=2", "eval.final_max_tokens=200"),
)


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A folder with a text and a plug-in; what is loaded in this process is forgotten again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fox.txt").write_text(TEXT)
    (tmp_path / "mine.py").write_text(MINE.replace("{kind}", "max"))
    monkeypatch.setattr(plugin, "_LOADED", {})
    before = dict(NORMS._variants)
    yield tmp_path
    NORMS._variants.clear()
    NORMS._variants.update(before)
    for name in [name for name in sys.modules if name.startswith("assay_plugins.")]:
        del sys.modules[name]


def assay(*arguments, status=0, **environment):
    """Run the command line in a process of its own; return what it says on stderr."""
    ended = subprocess.run(
        [sys.executable, "-m", "assay", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def tiny(**changes):
    fields = dict(field.split("=") for field in TINY)
    values = {name: int(v) if v.isdigit() else v for name, v in fields.items()}
    config = override(RunConfig(), {"data.text": ("fox.txt",), "train.steps": 4} | values)
    return override(config, changes)


@pytest.mark.slow
def test_a_norm_from_a_file_is_trained_recorded_and_asked_for_at_every_later_command(at):
    mine, trained = ("--plugin", "mine.py"), ("train", "fox.txt", *TINY, "train.steps=4")
    told = assay(*trained, "--name", "one", *mine, "model.norm=max")
    assert "the C++ kernels do not know model.norm=max; PyTorch computes it" in told
    assert "not counted parameters" in told
    manifest = json.loads((at / "runs/one/manifest.json").read_text())
    (record,) = manifest["plugins"]
    assert (record["name"], record["kinds"]) == ("mine.py", ["norm=max"])
    assert len(record["sha256"]) == 64
    for command in (("generate", "one"), ("resume", "one"), ("check", "data", "one")):
        told = assay(*command, status=2)
        assert told.count("\n") == 1
        assert "made with the plug-in mine.py (SHA-256 " in told
        assert "with --plugin mine.py" in told
    assay("generate", "one", "-m", "3", *mine)
    assay("check", "resume", "one", "--steps", "2", *mine)
    assay("runs")


@pytest.mark.slow
def test_what_changed_since_is_refused_by_resume_and_told_by_generate(at):
    mine = ("--plugin", "mine.py")
    assay("train", "fox.txt", *TINY, "train.steps=3", "--name", "one", *mine, "model.norm=max")
    edited = (at / "mine.py").read_text().replace("1e-6", "1e-3")
    (at / "mine.py").write_text(edited)
    manifest = at / "runs/one/manifest.json"
    content = json.loads(manifest.read_text())
    del content["result"]
    manifest.write_text(json.dumps(content | {"status": "interrupted"}))
    assert "the plug-in mine.py changed: SHA-256" in assay("generate", "one", "-m", "3", *mine)
    told = assay("resume", "one", *mine, status=1)
    assert "the plug-in mine.py changed" in told
    assert "--anyway" in told


@pytest.mark.slow
def test_workers_know_the_plug_ins_of_the_command(at):
    fields = [field for field in TINY if not field.startswith("eval")]
    assay(
        *("ablate", "model.norm=max,rms", "fox.txt", *fields, "train.steps=2"),
        *("eval.final_max_tokens=100", "--seeds", "2", "--plugin", "mine.py"),
    )
    states = [json.loads(p.read_text())["status"] for p in at.glob("lab/cells/*/manifest.json")]
    assert states == ["finished"] * 4


def test_a_plug_in_edited_while_its_workers_start_is_refused(at, monkeypatch):
    plugin.load(at / "mine.py")
    environment = plugin.handed_on()
    (at / "mine.py").write_text((at / "mine.py").read_text() + "\n# later\n")
    monkeypatch.setattr(plugin, "_LOADED", {})
    monkeypatch.setenv(*next(iter(environment.items())))
    with pytest.raises(ConfigError, match="edited meanwhile"):
        plugin.take_over()


@pytest.mark.parametrize("where", ["config", "manifest", "toml", "environment"])
def test_nothing_is_run_because_a_file_names_it(at, where, monkeypatch):
    """A stranger's run names a plug-in by every path there is; only the user's word loads one."""
    evil = at / "evil.py"
    evil.write_text(f"open({str(at / 'run')!r}, 'w')\n" + MINE.replace("{kind}", "evil"))
    Run.create(tiny(), at / "runs" / "one")
    if where == "toml":
        (at / "bad.toml").write_text(f'plugin = "{evil}"\n[model.norm]\nkind = "evil"\n')
        outcome = CliRunner().invoke(app, ["train", "bad.toml", "fox.txt", *TINY])
        assert isinstance(outcome.exception, ConfigError)
    rows = [{"name": str(evil), "sha256": "0" * 64, "kinds": ["norm=evil"]}]
    manifest, config = (at / "runs/one" / name for name in ("manifest.json", "config.json"))
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"plugins": rows if where == "manifest" else []}))
    content = json.loads(config.read_text())
    content["model"]["norm"] = {"kind": "evil", "module": "evil", "plugin": str(evil)}
    config.write_text(json.dumps(content))
    if where == "environment":
        monkeypatch.setenv("ASSAY_PLUGINS", json.dumps([[str(evil), ""]]))
    expected = ConfigError if where == "manifest" else RunError
    for command in ("generate", "show", "resume"):
        assert type(CliRunner().invoke(app, [command, "one"]).exception) is expected
    assert not (at / "run").exists()


@pytest.mark.parametrize("record", ["x", {"a": 1}, [3], [{"name": 4}], [{"name": "a"}], [[]]])
def test_a_record_of_any_shape_is_read_without_harm(at, record):
    assert all("\n" not in text for text in plugin.changed(record, tiny()))
    plugin.check_known([], at)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x = (", "line 1: SyntaxError"),
        ("\n\nx = 1 / 0", "line 3: ZeroDivisionError"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        ("raise SystemExit(0)", "line 1: SystemExit"),
        ("x = 1", "defines no variant"),
        (MINE.replace("{kind}", "rms"), "'rms' found, which is that of assay.nn.norm"),
        ("\0", "SyntaxError|ValueError|null bytes"),
    ],
)
def test_a_file_that_does_not_load_is_a_sentence_and_leaves_nothing(at, content, told):
    (at / "odd.py").write_text(content)
    with pytest.raises(ConfigError, match=told):
        plugin.load(at / "odd.py")
    assert "assay_plugins.odd" not in sys.modules
    with pytest.raises(ConfigError, match=r"nowhere\.py: No such file"):
        plugin.load(at / "nowhere.py")


def test_a_file_is_loaded_once_and_another_of_its_name_is_refused(at):
    (first,) = plugin.load(at / "mine.py")
    assert plugin.load(at / "mine.py") == (first,)
    (at / "other").mkdir()
    (at / "other/mine.py").write_text(MINE.replace("{kind}", "other"))
    with pytest.raises(ConfigError, match="expected files of different names"):
        plugin.load(at / "other/mine.py")


def test_another_formula_is_another_cell_and_another_docstring_is_not(at, monkeypatch):
    def key(text):
        monkeypatch.setattr(plugin, "_LOADED", {})
        (at / "mine.py").write_text(text)
        plugin.load(at / "mine.py")
        return Keys().of_task(Train(run=tiny(**{"model.norm": "max", "model.vocab_size": 256})))

    text = MINE.replace("{kind}", "max")
    before = key(text)
    assert key(text.replace('"""Scale."""', '"""Scale a little."""  # better')) == before
    assert key(text.replace("1e-6", "1e-5")) != before


class OwnConfig(NormVariant):
    kind: Literal["own"] = "own"

    def build(self, d_model):
        return nn.RMSNorm(d_model)


def test_in_python_a_class_is_simply_accepted_and_recorded(at):
    config = tiny(**{"model.norm": OwnConfig()})
    run = Run.create(config, at / "runs" / "one")
    *_, report = run.train()
    assert report.loss_nats > 0
    (record,) = json.loads((at / "runs/one/manifest.json").read_text())["plugins"]
    assert (record["name"], record["kinds"]) == (__name__, ["norm=own"])
    assert Run.open(at / "runs" / "one").config.model.norm == OwnConfig()
    with pytest.raises(UncountedError, match=r"norm=own"):
        count(override(config.model, {"vocab_size": 256}), seq_len=8)


def test_a_variants_own_initial_values_stay(at):
    """It had been 0 for whatever is neither linear nor called `weight`."""
    (cls,) = plugin.load(at / "mine.py")
    config = decode(ModelConfig, {"vocab_size": 7, "norm": {"kind": "max", "gain": 2.5}})
    gain = GPT.create(config).blocks[0].mixer_norm.gain
    assert torch.equal(gain, torch.full_like(gain, 2.5))
    assert config.norm == cls(gain=2.5)


def test_an_edited_config_that_names_no_known_kind_is_damage_where_no_plug_in_is_recorded(at):
    Run.create(tiny(), at / "runs" / "one")
    path = at / "runs/one/config.json"
    content = json.loads(path.read_text())
    content["model"]["norm"] = "zzz"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"unknown kind 'zzz'; .* needs --plugin FILE\.py"):
        Run.open(at / "runs" / "one")
