"""The gradients of one step's batch, in fast and in exact mode.

Fast mode adds up micro-batches as they come. Exact mode gives the same bits for every number of
micro-batches: see `train/exact.py`.

Shapes: B sequences, T1 = T + 1 tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.cuda_graph import GraphedCallable
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT
from assay.train.cached_parameters import cached_parameters
from assay.train.exact import TreeSum
from assay.train.native_backend import gradients
from assay.train.plan import ExecutionPlan


def backward(
    model: GPT, batch: Int[Tensor, "B T1"], plan: ExecutionPlan, step: int
) -> Float[Tensor, ""]:
    """Leave the gradients of the mean loss over the batch in the parameters; return that loss."""
    passes = _as_they_come if plan.config.exact_rows is None else _in_a_tree
    loss = passes(model, batch, plan, step)
    share_tied(model, plan, step)
    return loss


def share_tied(model: GPT, plan: ExecutionPlan, step: int) -> None:
    """Give embedding and output matrix the sum of their gradients while they are kept equal.

    It is the gradient of the one matrix that they stand for, and what is equal, has equal gradients
    and an equal state in the optimizer stays equal to the bit.
    """
    if step > model.config.equal_until(plan.config.steps):
        return
    assert model.unembed is not None, "two matrices are kept equal"
    one, other = model.embed.weight.grad, model.unembed.weight.grad
    assert one is not None, "both learn"
    assert other is not None, "both learn"
    other.copy_(one.add_(other))


def distinct_gradients(model: GPT, plan: ExecutionPlan, step: int) -> list[Tensor]:
    """Return all gradients, that of two matrices which are kept equal once."""
    equal = step <= model.config.equal_until(plan.config.steps)
    twin = model.unembed.weight if model.unembed is not None and equal else None
    return [p.grad for p in cached_parameters(model) if p.grad is not None and p is not twin]


def passes_of(
    model: GPT, plan: ExecutionPlan
) -> Callable[[Int[Tensor, "B T1"], int], Float[Tensor, ""]]:
    """Return `backward` for one model and plan, recorded where the plan says so."""
    if not plan.graphs:
        return lambda batch, step: backward(model, batch, plan, step)
    parameters = list(model.parameters())

    def work(batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        def loss_of(_: int, piece: Tensor) -> Tensor:
            with plan.precision():
                return next_token_loss(model, piece)

        with repeatable(plan):
            return differentiate(loss_of, parameters, pieces_of(batch, plan))

    recorded = GraphedCallable(work)

    def passes(batch: Tensor, step: int) -> Tensor:
        loss, gradients = recorded(batch)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        share_tied(model, plan, step)
        return loss

    return passes


def differentiate(
    loss_of: Callable[[int, Tensor], Float[Tensor, "*R"]],
    leaves: Sequence[Tensor],
    pieces: Sequence[Tensor],
) -> tuple[Float[Tensor, "*R"], list[Tensor]]:
    """Return the mean over pieces of their losses, and of its sum the gradient in each leaf.

    The gradients are new, and laid out in memory as their leaves are, which fused optimizers rely
    on and `torch.autograd.grad` does not promise.

    Args:
        loss_of: From the index and the tokens of a piece to its loss, or one for each replica.
        leaves: Each takes part in the loss.
        pieces: Of equal size.
    """
    total = torch.zeros((), device=pieces[0].device)
    for leaf in leaves:
        leaf.grad = None
    for index, piece in enumerate(pieces):
        loss = loss_of(index, piece) / len(pieces)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == len(leaves), "each leaf takes part"
    return total, gradients


def pieces_of(batch: Int[Tensor, "B T1"], plan: ExecutionPlan) -> tuple[Tensor, ...]:
    """Return the parts of a batch that go through the model one after another."""
    if plan.config.exact_rows is None:
        return batch.chunk(plan.config.micro_batches)
    return torch.split(batch, plan.config.exact_rows)


def _as_they_come(model: GPT, batch: Tensor, plan: ExecutionPlan, step: int) -> Tensor:
    total = torch.zeros((), device=batch.device)
    pieces = pieces_of(batch, plan)
    for index, piece in enumerate(pieces):
        total = total + _piece(model, piece, plan, (step, index), len(pieces))
    return total


def _in_a_tree(model: GPT, batch: Tensor, plan: ExecutionPlan, step: int) -> Tensor:
    tree = TreeSum()
    grains = pieces_of(batch, plan)
    for index, grain in enumerate(grains):
        loss = _piece(model, grain, plan, (step, index), len(grains))
        learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
        tree.add([loss, *(parameter.grad for parameter in learning if parameter.grad is not None)])
        model.zero_grad()
    total, *gradients = tree.total()
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.grad = gradient
    return total


def _piece(
    model: GPT, piece: Tensor, plan: ExecutionPlan, place: tuple[int, int], pieces: int
) -> Tensor:
    """Add the gradients of one of so many pieces, at (step, index); return its part of the loss."""
    if plan.native:
        apart = plan.config.exact_rows is not None  # a tree keeps what it is given
        seed = plan.dropout_seed(*place)
        return gradients(model, piece, bf16=plan.autocast, seed=seed, pieces=pieces, apart=apart)
    with repeatable(plan), dropout_drawn(plan, *place):
        with plan.precision():
            loss = next_token_loss(model, piece) / pieces
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@contextmanager
def repeatable(plan: ExecutionPlan) -> Iterator[None]:
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
def dropout_drawn(plan: ExecutionPlan, step: int, micro_batch: int) -> Iterator[None]:
    """Make what dropout draws a function of (seed, step, micro-batch); restore the generators."""
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(plan.dropout_seed(step, micro_batch))
        yield
