"""Who trains: assay and its peers, each as a function that takes one step.

All of them take the same tokens, the mean cross-entropy, fused AdamW and, but for the article's
code, gradients clipped to a norm of 1, which is what each project's own trainer does.
"""

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay import presets
from assay.config import RunConfig
from assay.count import count
from assay.data.cache import cache_folder
from assay.engine.autotune import tune
from assay.engine.device import resolve_plan
from assay.nn.model import GPT, ModelConfig
from assay.schema import override
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.optim import AdamWConfig, MuonConfig, OptimizerConfig
from assay.train.plan import ExecutionPlan
from shapes import Shape

Step = Callable[[], Tensor | float]


@dataclass(frozen=True, slots=True)
class Setting:
    """How a peer is run."""

    compiled: bool
    bf16: bool

    def __str__(self) -> str:
        return f"{'compiled' if self.compiled else 'eager'} {'bf16' if self.bf16 else 'fp32'}"


PLAIN = Setting(compiled=False, bf16=False)
ALL_SETTINGS = tuple(
    Setting(compiled, bf16) for compiled, bf16 in itertools.product((False, True), repeat=2)
)


@dataclass(frozen=True, slots=True)
class Runner:
    """An entrant at one shape, ready to go.

    Attributes:
        step: Takes the next step; returns the loss before it, in nats.
        setting: How it is run, in words.
        parameters: How many it trains, a tied matrix once.
        step_flops: Of matrix products in a step that the causal mask leaves, forward and backward.
    """

    step: Step
    setting: str
    parameters: int
    step_flops: int


@dataclass(frozen=True, slots=True)
class Entrant:
    """A row of the table.

    Attributes:
        label: As the table prints it.
        settings: Those that its best is taken from; none where it chooses for itself.
        make: Builds it.
        beside: The entrant of assay that it is compared with.
    """

    label: str
    settings: tuple[Setting, ...]
    make: Callable[[Shape, Setting, torch.device], Runner]
    beside: str = "assay"


def gpt2_config(shape: Shape) -> ModelConfig:
    """Return GPT-2's architecture at a shape, without dropout."""
    return override(presets.gpt2(), _sizes(shape) | {"dropout": 0.0, "mixer.dropout": 0.0})


def nanogpt_config(shape: Shape) -> ModelConfig:
    """Return nanoGPT's architecture at a shape: GPT-2's without biases, exact GELU."""
    return override(presets.nanogpt_char(), _sizes(shape))


def default_config(shape: Shape) -> ModelConfig:
    """Return assay's default architecture at a shape."""
    return override(ModelConfig(), _sizes(shape))


def _sizes(shape: Shape) -> dict[str, int]:
    return {
        "n_layers": shape.n_layers,
        "d_model": shape.d_model,
        "mixer.n_heads": shape.n_heads,
        "max_seq_len": shape.seq_len,
        "vocab_size": shape.vocab_size,
    }


def step_flops(model: ModelConfig, shape: Shape) -> int:
    """Return three times the forward FLOPs of the products that a causal mask leaves."""
    return 3 * count(model, seq_len=shape.seq_len).causal_forward_flops * shape.batch_size


def choice_folder(shape: Shape, name: str) -> Path:
    """Return where assay remembers what it chose for one of its entrants."""
    return cache_folder(None) / "benchmarks" / shape.name / name


def _assay(
    name: str, config_of: Callable[[Shape], ModelConfig], optimizer: OptimizerConfig
) -> Callable[[Shape, Setting, torch.device], Runner]:
    """Return what builds assay, run as `assay train` runs a long training."""

    def make(shape: Shape, setting: Setting, device: torch.device) -> Runner:
        config = RunConfig(
            model=config_of(shape),
            train=TrainConfig(
                steps=10**6, batch_size=shape.batch_size, optimizer=optimizer, device=str(device)
            ),
        )
        plan, _ = tune(config, resolve_plan(config.train), choice_folder(shape, name))
        model = GPT.create(config.model, device=device)
        plan.prepare(model)
        batch_at = shape.batches(device)
        reports = train(model, batch_at, optimizer.build(model), plan)
        flops = step_flops(config.model, shape)
        return Runner(lambda: next(reports).loss_nats, _words(plan), _parameters(model), flops)

    return make


def _words(plan: ExecutionPlan) -> str:
    precision = "bf16" if plan.autocast else "fp32"
    if plan.native:
        return f"C++ kernels, {precision}"
    return f"{'compiled' if plan.compiled else 'eager'} {precision}, {plan.attention}"


def _peer(
    module: str, *, clip_norm: float | None = 1.0, fused: bool = True
) -> Callable[[Shape, Setting, torch.device], Runner]:
    """Return what builds a peer; its module is imported when it is built."""

    def make(shape: Shape, setting: Setting, device: torch.device) -> Runner:
        torch.manual_seed(0)
        model = importlib.import_module(f"peers.{module}").build(shape).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
        loss_of = _Loss(model)
        if setting.compiled:
            loss_of.compile()

        batch_at, steps = shape.batches(device), itertools.count(1)

        def step() -> Tensor:
            batch = batch_at(next(steps))
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=setting.bf16):
                loss = loss_of(batch)
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        flops = step_flops(gpt2_config(shape), shape)
        return Runner(step, str(setting), _parameters(model), flops)

    return make


class _Loss(nn.Module):
    """Model and cross-entropy in one, so that both are compiled."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor) -> Tensor:
        """Return the mean loss over tokens (B, T + 1), in nats."""
        logits = self.model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


ENTRANTS = {
    "assay": Entrant("assay, GPT-2 architecture", (), _assay("assay", gpt2_config, AdamWConfig())),
    "assay-nanogpt": Entrant(
        "assay, nanoGPT architecture", (), _assay("assay-nanogpt", nanogpt_config, AdamWConfig())
    ),
    "assay-default": Entrant(
        "assay, default architecture", (), _assay("assay-default", default_config, AdamWConfig())
    ),
    "assay-muon": Entrant(
        "assay, default with Muon", (), _assay("assay-muon", default_config, MuonConfig())
    ),
    "hf": Entrant("Hugging Face GPT-2", ALL_SETTINGS, _peer("huggingface")),
    "litgpt": Entrant("litgpt", ALL_SETTINGS, _peer("lit")),
    "x-transformers": Entrant("x-transformers", ALL_SETTINGS, _peer("xtransformers")),
    "nanogpt-best": Entrant(
        "nanoGPT style, its best", ALL_SETTINGS, _peer("nanogpt"), "assay-nanogpt"
    ),
    "nanogpt": Entrant("nanoGPT style, eager fp32", (PLAIN,), _peer("nanogpt"), "assay-nanogpt"),
    "article": Entrant(
        "the article's appendix", (PLAIN,), _peer("article", clip_norm=None, fused=False)
    ),
}
