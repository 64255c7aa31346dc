"""The training loop.

    for report in train(model, windows.batch, optimizers, plan, start=0):
        log.write(report)
        if report.step % 500 == 0:
            save(...)

Evaluation, checkpoints, logging and early stopping are statements in that loop, in the order they
happen. There are no callbacks. The step's tokens are a function of (seed, step) and dropout's
random numbers of (seed, step, micro-batch), so the step number is the whole cursor of a run.

Shapes: B sequences, T tokens of context; a batch holds T + 1 tokens a row.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.errors import DivergedError
from assay.nn.head import at_least_float32
from assay.nn.init import stream_seed
from assay.nn.model import GPT
from assay.train.config import TrainConfig
from assay.train.optim import Optimizers
from assay.train.watch import first_bad_layer, last_bad_gradient


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did.

    Attributes:
        step: Counted from 1 over the whole run, resumed or not.
        loss_nats: Mean cross-entropy per token, before the update.
        grad_norm: L2 norm of all gradients, before clipping.
        lr: Learning rate of the update (of the matrices, with Muon).
        tokens: Targets in the batch.
        elapsed_s: Wall-clock time of the step.
    """

    step: int
    loss_nats: float
    grad_norm: float
    lr: float
    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A `TrainConfig` with its device and precision settled.

    Attributes:
        config: What was asked for.
        device: Where the model is.
        autocast: Whether products are taken in bfloat16.
    """

    config: TrainConfig
    device: torch.device
    autocast: bool

    def precision(self) -> torch.autocast:
        """Return the context in which a forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


def train(
    model: GPT,
    batch_at: Callable[[int], Int[Tensor, "B T1"]],
    optimizers: Optimizers,
    plan: Plan,
    *,
    start: int = 0,
) -> Iterator[StepReport]:
    """Take the steps after `start` and yield a report after each.

    Args:
        model: In training mode from here on.
        batch_at: Tokens of a step, counted from 1.
        optimizers: Over the parameters of `model`.
        plan: How many steps, at which rate, in which precision.
        start: Steps already taken, when resuming.

    Raises:
        DivergedError: If a loss or gradient is not finite. Nothing was updated by that step.
    """
    config = plan.config
    for step in range(start + 1, config.steps + 1):
        began = time.perf_counter()
        model.train()
        batch = batch_at(step).to(plan.device, non_blocking=True)
        loss = _backward(model, batch, plan, step)
        norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
        grad_norm = float(norm)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):  # before clipping spreads a NaN
            message = _diagnosis(model, batch, plan, (step, loss, grad_norm))
            optimizers.zero_grad()
            raise DivergedError(message)
        if config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(model.parameters(), config.clip_norm, norm)
        factor = config.schedule.factor(step, config.steps)
        optimizers.step(factor)
        optimizers.zero_grad()
        elapsed_s = time.perf_counter() - began
        lr = factor * optimizers.peak_lr
        yield StepReport(step, loss, grad_norm, lr, batch[:, 1:].numel(), elapsed_s)


def next_token_loss(model: GPT, tokens: Int[Tensor, "B T1"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats, of each token given those before it."""
    logits = model(tokens[:, :-1])
    return F.cross_entropy(at_least_float32(logits).flatten(0, 1), tokens[:, 1:].flatten())


def _backward(model: GPT, batch: Tensor, plan: Plan, step: int) -> float:
    """Accumulate the gradients of the mean loss over all micro-batches; return that loss."""
    pieces = batch.chunk(plan.config.micro_batches)
    total = torch.zeros((), device=batch.device)
    for index, piece in enumerate(pieces):
        with _dropout_seed(plan, step, index), plan.precision():
            loss = next_token_loss(model, piece) / len(pieces)
        loss.backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    return float(total)


@contextmanager
def _dropout_seed(plan: Plan, step: int, micro_batch: int) -> Iterator[None]:
    """Make what dropout draws a function of (seed, step, micro-batch); restore the generators."""
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(stream_seed(plan.config.seed, f"dropout/{step}/{micro_batch}"))
        yield


def _diagnosis(model: GPT, batch: Tensor, plan: Plan, found: tuple[int, float, float]) -> str:
    step, loss, grad_norm = found
    if math.isfinite(loss):
        what, where = f"gradient norm {grad_norm}", last_bad_gradient(model)
    else:
        with _dropout_seed(plan, step, 0), plan.precision():
            what, where = f"loss {loss}", first_bad_layer(model, batch[:, :-1])
    return (
        f"step {step}: {what} found, expected a finite number; it arises in {where}. The update "
        "was not made and the weights are those of the step before. Lower "
        "train.optimizer.lr, lengthen the warm-up, or look at model.norm and model.init."
    )
