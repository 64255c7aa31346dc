"""`assay check variant`: what is sound passes, and each fault planted is the finding about it."""

import json
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from assay import plugin
from assay.checks.model_contract import SMALL, check_resume
from assay.checks.variant import check_variant, find_variant
from assay.cli import app
from assay.errors import ConfigError
from assay.family import families, field_of, kind_of
from assay.nn.model import ModelConfig
from assay.nn.norm import NORMS, NormVariant
from assay.nn.position import Position, PositionVariant
from assay.sampling.filters import FilterVariant
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.optim import Optimizers, OptimizerVariant
from assay.train.schedule import ScheduleVariant

BUILT_IN = {f"{field_of(v)}={kind_of(v)}": v for family in families() for v in family.known}
BUILT_IN = {name: v for name, v in BUILT_IN.items() if v.__module__.startswith("assay.")}
QUICK = {"norm=dyt", "position=t5", "mlp=gelu", "optimizer=adafactor", "filter=top_n_sigma"}


@pytest.fixture(autouse=True)
def _only_known_ones():
    """What a test shows to a family is forgotten again."""
    before = {id(family): dict(family._variants) for family in families()}
    yield
    for family in families():
        family._variants.clear()
        family._variants.update(before[id(family)])


def broken(variant):
    return [finding.name for finding in check_variant(variant) if not finding.fine]


def test_every_family_is_here():
    fields = {name.partition("=")[0] for name in BUILT_IN}
    assert fields == {
        *("norm", "position", "block", "mixer", "mlp", "init"),
        *("optimizer", "schedule", "adapt", "filter"),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BUILT_IN]
)
def test_assays_own_keep_the_contract(name):
    assert find_variant(name) is BUILT_IN[name]
    assert broken(BUILT_IN[name]()) == []


@pytest.mark.parametrize("fields", [{"mlp": "gelu"}, {"init": "torch"}], ids=str)
def test_training_goes_on_from_a_checkpoint_to_the_same_bits_by_pytorch(fields):
    """It had not: the weights in the file were not aligned, and products rounded otherwise."""
    config = decode(ModelConfig, SMALL | fields)
    assert "same bits" in check_resume(config, decode(TrainConfig, {"optimizer": "adamw"}))


class Faulty(nn.Module):
    """A scale with one fault."""

    def __init__(self, d_model, fault):
        super().__init__()
        self.fault = fault
        start = torch.rand(d_model) if fault == "time" else torch.ones(d_model)
        self.gain = nn.Parameter(start)
        self.seen = 0
        if fault == "unused":
            self.other = nn.Parameter(torch.ones(2))
        if fault == "infinite":
            self.other = nn.Parameter(torch.full((d_model,), torch.inf))
        if fault == "size" and self.gain.is_meta:
            self.gain = nn.Parameter(torch.ones(d_model + 1))
        if fault == "buffer":
            self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, x):
        y = x * self.gain
        match self.fault:
            case "future":
                return y - x.mean(1, keepdim=True)
            case "company":
                return y * x.square().mean(0, keepdim=True).rsqrt()
            case "memory":
                self.seen += 1
                return y * (1 + 0.1 * min(self.seen, 50))
            case "buffer":
                with torch.no_grad():
                    self.count += 1
                return y * (1 + 0.1 * self.count)
            case "unit":
                return y / (x.abs().amax(-1, keepdim=True) + (1 if x.shape[1] == 1 else 0))
            case "slope":
                return y + 0.5 * (x * self.gain).detach()
            case "narrow":
                return torch.where(y.dtype == torch.bfloat16, y * torch.nan, y)
        return y


class FaultyConfig(NormVariant):
    kind: Literal["faulty"] = "faulty"
    fault: str = ""

    def build(self, d_model):
        return Faulty(d_model, self.fault)

    def num_params(self, d_model):
        return d_model + (self.fault == "count")

    def reference(self, x, weights):
        return x * weights["gain"] * (1.001 if self.fault == "twin" else 1)


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("future", "causality"),
        ("company", "batch"),
        ("memory", "resume"),
        ("buffer", "resume"),
        ("unit", "cache"),
        ("slope", "gradients"),
        ("unused", "gradients"),
        ("infinite", "initial values"),
        ("size", "build"),
        ("count", "count"),
        ("twin", "float64 twin"),
    ],
)
def test_a_fault_planted_in_a_norm_is_found(fault, finding):
    assert finding in broken(FaultyConfig(fault=fault))


def test_the_same_norm_without_a_fault_is_sound():
    assert broken(FaultyConfig()) == []


class FromTheEnd(Position):
    """Counts from the end of what it is given, so that no cache can know a position."""

    def __init__(self, d_model):
        super().__init__()
        self.direction = nn.Parameter(torch.ones(d_model))

    def embed(self, x, positions):
        return x + (positions.max() - positions)[..., None] * self.direction


class FromTheEndConfig(PositionVariant):
    kind: Literal["from_the_end"] = "from_the_end"

    def build(self, *, d_model, n_heads, max_seq_len):
        return FromTheEnd(d_model)


def test_a_position_that_no_cache_can_know_is_found():
    assert {"cache", "batch"} <= set(broken(FromTheEndConfig()))


class Own(torch.optim.SGD):
    """Steps whose size grows with a count that is kept nowhere but in the object."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["lr"] * self.count)


class OwnConfig(OptimizerVariant):
    kind: Literal["own_sgd"] = "own_sgd"
    fault: str = ""

    def build(self, model):
        parameters = list(model.parameters())
        match self.fault:
            case "hidden":
                return Optimizers.over(model, (Own(parameters, lr=0.1), 0.01))
            case "left out":
                return Optimizers.over(model, (torch.optim.SGD(parameters[1:], lr=0.1), 0.1))
            case "uphill":
                return Optimizers.over(
                    model, (torch.optim.SGD(parameters, lr=0.1, maximize=True), 0.1)
                )
            case "decay":
                return Optimizers.over(model, (Shrinking(parameters, lr=0.1), 0.1))
        momentum = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        return Optimizers.over(model, (momentum, 0.1))


class Shrinking(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(0.99)


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("", None),
        ("hidden", "resume"),
        ("left out", "build"),
        ("uphill", "learning"),
        ("decay", "rate"),
    ],
)
def test_a_fault_planted_in_an_optimizer_is_found(fault, finding):
    found = broken(OwnConfig(fault=fault))
    assert (finding in found) if finding else not found


class OddConfig(ScheduleVariant):
    kind: Literal["odd"] = "odd"
    calls: ClassVar[list[int]] = []
    fault: str

    def factor(self, step, steps):
        match self.fault:
            case "below":
                return 1 - 2 * step / steps
            case "end":
                return 1 / (steps - step)
        self.calls.append(step)
        return len(self.calls) * 1e-3


@pytest.mark.parametrize("fault", ["below", "end", "calls"])
def test_a_fault_planted_in_a_schedule_is_found(fault):
    assert broken(OddConfig(fault=fault)) == ["factors"]


class DroppingConfig(FilterVariant):
    kind: Literal["dropping"] = "dropping"
    fault: str

    def keep(self, logits):
        match self.fault:
            case "all":
                return logits.masked_fill(logits <= 0, -torch.inf)
            case "scaled":
                return logits * 2
            case "company":
                return logits.masked_fill(logits < logits.mean(), -torch.inf)
        return F.dropout(logits, 0.5) - torch.inf


@pytest.mark.parametrize(
    ("fault", "finding"), [("all", "values"), ("scaled", "values"), ("company", "rows")]
)
def test_a_fault_planted_in_a_filter_is_found(fault, finding):
    assert finding in broken(DroppingConfig(fault=fault))


MINE = """
from typing import Literal
from torch import nn
from assay.nn.norm import NormVariant

class MineConfig(NormVariant):
    kind: Literal["mine"] = "mine"
    eps: float = 1e-6

    def build(self, d_model):
        return nn.RMSNorm(d_model, eps=self.eps)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "_LOADED", {})
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_the_command_says_it_in_words_and_in_one_line_of_json(mine):
    outcome = CliRunner().invoke(app, ["check", "variant", f"{mine}:MineConfig", "eps=0.1"])
    assert outcome.exit_code == 0, outcome.output
    row = json.loads(outcome.stdout)
    assert (row["check"], row["fine"]) == ("variant", True)
    assert "not counted" in row["findings"]["count"]["words"]
    assert "none given" in row["findings"]["float64 twin"]["words"]
    assert "ok  causality" in outcome.stderr
    assert outcome.stderr.endswith("It keeps the contract.\n")


def test_a_broken_contract_is_exit_status_1(mine):
    mine.write_text(MINE.replace("nn.RMSNorm(d_model, eps=self.eps)", "nn.Softmax(dim=1)"))
    outcome = CliRunner().invoke(app, ["check", "variant", f"{mine}:mine"])
    assert outcome.exit_code == 1
    assert outcome.stderr.endswith("It does NOT keep the contract.\n")


@pytest.mark.parametrize("target", ["{}:Other", "norm=other", "{}", "nowhere.py:X", "x"])
def test_what_is_not_there_is_a_sentence(mine, target):
    outcome = CliRunner().invoke(app, ["check", "variant", target.format(mine)])
    assert isinstance(outcome.exception, ConfigError)
    assert "NormVariant" not in str(outcome.exception)
    assert NORMS is not None
