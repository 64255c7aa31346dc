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
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.errors import DivergedError
from assay.nn.model import GPT
from assay.train.gradients import passes_of
from assay.train.nonfinite import NonFiniteReport, diagnose, gradient_norm
from assay.train.optim import Optimizers
from assay.train.plan import ExecutionPlan

CLIP_EPS = 1e-6
"""Added to a norm before it divides, as by torch.nn.utils.clip_grads_with_norm_."""


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
        trouble: Why the loss or the gradient was not finite at first, where the run went on.
    """

    step: int
    loss_nats: float
    grad_norm: float
    lr: float
    tokens: int
    elapsed_s: float
    trouble: NonFiniteReport | None = None

    @property
    def skipped(self) -> bool:
        """Whether the step made no update."""
        return self.trouble is not None and not self.trouble.recovered


def train(
    model: GPT,
    batch_at: Callable[[int], Int[Tensor, "B T1"]],
    optimizers: Optimizers,
    plan: ExecutionPlan,
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
        DivergedError: If a loss or gradient is not finite and the config does not say to skip such
            a step. Nothing was updated by it.
    """
    config, passes = plan.config, passes_of(model, plan)
    began = time.perf_counter()
    batch = _on_device(batch_at(start + 1), plan) if start < config.steps else None
    for step in range(start + 1, config.steps + 1):
        assert batch is not None
        if not model.training:  # after an evaluation
            model.train()
        total = passes(batch, step)
        norm = gradient_norm(model, plan, step)
        # A GPU is still at work here: the next tokens travel meanwhile, and one read waits for all.
        upcoming = _on_device(batch_at(step + 1), plan) if step < config.steps else None
        report = conclude(model, batch, optimizers, plan, step, (total, norm))
        yield replace(report, elapsed_s=time.perf_counter() - began)
        began, batch = time.perf_counter(), upcoming


def conclude(
    model: GPT,
    batch: Int[Tensor, "B T1"],
    optimizers: Optimizers,
    plan: ExecutionPlan,
    step: int,
    found: tuple[Float[Tensor, ""], Float[Tensor, ""]],
) -> StepReport:
    """Judge the loss and gradient norm found in a step, update the weights, drop the gradients.

    Raises:
        DivergedError: If they are not finite and the config does not say to skip such a step.
    """
    config, (total, norm) = plan.config, found
    loss, grad_norm = torch.stack((total, norm)).tolist()
    trouble = None
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):  # before clipping spreads a NaN
        trouble = diagnose(model, batch, plan, (step, loss, grad_norm))
        if config.on_nonfinite == "stop":
            optimizers.zero_grad()
            raise DivergedError(trouble.message)
        if trouble.recovered:
            loss, grad_norm = trouble.loss_nats, trouble.grad_norm
            norm = gradient_norm(model, plan, step)
    factor = config.schedule.factor(step, config.steps)
    if trouble is None or trouble.recovered:
        _update(model, optimizers, plan, factor, norm)
    optimizers.zero_grad()
    lr, tokens = factor * optimizers.peak_lr, batch[:, 1:].numel()
    return StepReport(step, loss, grad_norm, lr, tokens, 0.0, trouble)


def _update(
    model: GPT, optimizers: Optimizers, plan: ExecutionPlan, factor: float, norm: Float[Tensor, ""]
) -> None:
    """Update the weights by the gradients, clipped, at `factor` times the peak rates."""
    limit = plan.config.clip_norm
    if plan.native:
        scale = 1.0 if limit is None else min(1.0, limit / (norm.item() + CLIP_EPS))
        optimizers.step_natively(factor, scale=scale, bf16=plan.autocast)
        return
    if limit is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    optimizers.step(factor)


def _on_device(batch: Tensor, plan: ExecutionPlan) -> Tensor:
    """Send tokens on their way; from pinned memory the CPU need not wait for them."""
    if plan.device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(plan.device, non_blocking=True)
