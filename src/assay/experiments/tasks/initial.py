"""What an untrained model says, over draws of its weights, whole or with a fault planted."""

import dataclasses
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from assay.experiments.tasks.task import Task, Values
from assay.measure.panel import initial_panel
from assay.nn.model import GPT, ModelConfig
from assay.runs.run import Run

Fault = Literal["none", "leaking mask", "unshifted target", "no layers"]


@final
class InitialPanel(Task):
    """The panel at step 0 on random tokens, for each of several draws of the weights."""

    kind: Literal["initial-panel"] = "initial-panel"
    model: ModelConfig
    """Its vocabulary known."""
    draws: PositiveInt
    """Seeds 0, 1, ... of weights and tokens."""
    sequences: PositiveInt
    """Rows of random tokens."""
    seq_len: PositiveInt
    """Tokens each."""
    fault: Fault = "none"
    """What is wrong with the model or with what it is judged by."""

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Return a list over draws for every figure of the panel."""
        found = [self._draw(seed) for seed in range(self.draws)]
        return {name: [each[name] for each in found] for name in found[0]}

    def _draw(self, seed: int) -> dict[str, float]:
        model = GPT.create(self.model, seed=seed).eval()
        generator = torch.Generator().manual_seed(seed)
        shape = (self.sequences, self.seq_len + 1)
        tokens = torch.randint(self.model.vocab, shape, generator=generator)
        _plant(self.fault, model)
        panel = initial_panel(model, tokens)
        loss = panel.loss_nats
        if self.fault == "unshifted target":
            loss = _unshifted_loss(model, tokens[:, :-1])
        return {
            "loss_nats": loss,
            "excess_nats": loss - panel.uniform_nats,
            "logit_variance": panel.logit_variance,
            "entropy_deficit_nats": panel.uniform_nats - panel.entropy_nats,
            "p_current": panel.p_current,
            "flagged": float(bool(panel.words)),
        }


def _plant(fault: Fault, model: GPT) -> None:
    if fault == "leaking mask":
        for block in model.blocks:
            block.register_forward_pre_hook(_see_everything)
    if fault == "no layers":
        model.blocks = nn.ModuleList()


def _see_everything(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x, context, cache = inputs
    everything = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool)
    return x, dataclasses.replace(context, mask=everything), cache


@torch.inference_mode()
def _unshifted_loss(model: GPT, inputs: Tensor) -> float:
    return float(F.cross_entropy(model(inputs).flatten(0, 1), inputs.flatten()))
