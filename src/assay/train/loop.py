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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.errors import DivergedError
from assay.nn.attention import Kernel
from assay.nn.init import stream_seed
from assay.nn.loss import next_token_loss
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
    """A `TrainConfig` with all that it leaves open settled.

    Attributes:
        config: What was asked for.
        device: Where the model is.
        autocast: Whether products are taken in bfloat16.
        attention: Which kernel computes attention.
        compiled: Whether layers go through torch.compile in training.
    """

    config: TrainConfig
    device: torch.device
    autocast: bool
    attention: Kernel = "fused"
    compiled: bool = False

    def precision(self) -> torch.autocast:
        """Return the context in which a forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)

    def prepare(self, model: GPT) -> None:
        """Set how `model` is executed; what it computes stays the same, to rounding."""
        model.kernel, model.recompute = self.attention, self.config.recompute
        if self.compiled:
            for block in model.blocks:  # one compilation serves all: they share their code
                block.compile(dynamic=False)

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run a compiled model as written: for shapes that come once, such as an evaluation's."""
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            yield


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
    began = time.perf_counter()
    batch = _on_device(batch_at(start + 1), plan) if start < config.steps else None
    for step in range(start + 1, config.steps + 1):
        assert batch is not None
        model.train()
        total = _backward(model, batch, plan, step)
        norm = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
        # A GPU is still at work here: the next tokens travel meanwhile, and one read waits for all.
        upcoming = _on_device(batch_at(step + 1), plan) if step < config.steps else None
        loss, grad_norm = torch.stack((total, norm)).tolist()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):  # before clipping spreads a NaN
            message = diagnosis(model, batch, plan, (step, loss, grad_norm))
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
        began, batch = time.perf_counter(), upcoming


def _on_device(batch: Tensor, plan: Plan) -> Tensor:
    """Send tokens on their way; from pinned memory the CPU need not wait for them."""
    if plan.device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(plan.device, non_blocking=True)


def _backward(model: GPT, batch: Tensor, plan: Plan, step: int) -> Float[Tensor, ""]:
    """Accumulate the gradients of the mean loss over all micro-batches; return that loss."""
    pieces = batch.chunk(plan.config.micro_batches)
    total = torch.zeros((), device=batch.device)
    for index, piece in enumerate(pieces):
        with repeatable(plan), _dropout_seed(plan, step, index):
            with plan.precision():
                loss = next_token_loss(model, piece) / len(pieces)
            loss.backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    return total


@contextmanager
def repeatable(plan: Plan) -> Iterator[None]:
    """Make compiled code repeat its bits, which on several threads it does only when told to."""
    if not plan.compiled:
        yield
        return
    settings: Any = torch.utils.deterministic
    before, fill = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it costs time, and helps only to find bugs
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fill


@contextmanager
def _dropout_seed(plan: Plan, step: int, micro_batch: int) -> Iterator[None]:
    """Make what dropout draws a function of (seed, step, micro-batch); restore the generators."""
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(stream_seed(plan.config.seed, f"dropout/{step}/{micro_batch}"))
        yield


def diagnosis(model: GPT, batch: Tensor, plan: Plan, found: tuple[int, float, float]) -> str:
    """Say where a step, a loss and a gradient norm that are not finite come from."""
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
