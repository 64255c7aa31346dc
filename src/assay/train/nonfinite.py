"""Where a number stopped being finite, and whether it does so again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from assay.native.build import kernels
from assay.nn.model import GPT
from assay.train.adamw import norm_natively
from assay.train.gradients import backward, distinct_gradients, dropout_drawn, pieces_of
from assay.train.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class NonFiniteReport:
    """What is known of a step whose loss or gradient was not finite.

    Attributes:
        message: Step, value, layer, sequence of the batch, and what to do.
        loss_nats: Of a second computation.
        grad_norm: Of a second computation.
    """

    message: str
    loss_nats: float
    grad_norm: float

    @property
    def recovered(self) -> bool:
        """Whether the second computation was finite: the first one went wrong, not the model."""
        return math.isfinite(self.loss_nats) and math.isfinite(self.grad_norm)


def gradient_norm(model: GPT, plan: ExecutionPlan, step: int) -> Float[Tensor, ""]:
    """Return the L2 norm of all gradients of a step."""
    gradients = distinct_gradients(model, plan, step)
    natively = plan.native and kernels().lacks("adamw") is None
    return norm_natively(gradients) if natively else nn.utils.get_total_norm(gradients)


def diagnose(
    model: GPT, batch: Int[Tensor, "B T1"], plan: ExecutionPlan, found: tuple[int, float, float]
) -> NonFiniteReport:
    """Say where a step, loss and gradient norm that are not finite come from, and compute again.

    The second computation reads the same weights, tokens and random numbers, so on a sound machine
    it ends as the first did. Its gradients are left in the parameters.
    """
    step, loss, grad_norm = found
    if math.isfinite(loss):
        what, where = f"gradient norm {grad_norm}", last_bad_gradient(model)
    else:
        what, where = f"loss {loss}", _bad_place(model, batch, plan, step)
    model.zero_grad()
    total = backward(model, batch, plan, step)
    again, norm_again = torch.stack((total, gradient_norm(model, plan, step))).tolist()
    if math.isfinite(again) and math.isfinite(norm_again):
        verdict = (
            f"A second computation of the step gave loss {again:.4f} and gradient norm "
            f"{norm_again:.4g}: the first went wrong, and the cause is the machine (memory, "
            "processor, heat), not the model or its data. Test the machine before you trust it; "
            "assay resume goes on."
        )
    else:
        verdict = (
            "A second computation came to the same, so the cause is the model or its data, not the "
            "machine. Lower train.optimizer.lr, lengthen the warm-up, or look at model.norm and "
            f"model.init; assay data show RUN --step {step} prints the batch."
        )
    message = (
        f"step {step}: {what} found, expected a finite number; it arises in {where}. The update "
        f"was not made and the weights are those of the step before. {verdict}"
    )
    return NonFiniteReport(message, again, norm_again)


def _bad_place(model: GPT, batch: Tensor, plan: ExecutionPlan, step: int) -> str:
    """Return the first bad layer of the first bad piece, and the sequence of the batch it is in."""
    first = 0
    for index, piece in enumerate(pieces_of(batch, plan)):
        with dropout_drawn(plan, step, index), plan.precision(), plan.uncompiled():
            found, row = first_bad_output(model, piece[:, :-1])
        if row is not None:
            return f"{found}, in row {first + row} of the batch"
        first += len(piece)
    return found


def first_bad_output(model: GPT, tokens: Int[Tensor, "B T"]) -> tuple[str, int | None]:
    """Return the first layer of a forward pass whose output is not finite, and in which sequence.

    Bad weights are named before any layer. Where every output is finite, what is left is said, and
    the sequence is None.
    """
    if name := first_bad(model.state_dict()):
        return f"the weights: {name} is already not finite", None
    found: list[tuple[str, int]] = []

    def look(name: str, output: object) -> None:
        if not found and isinstance(output, Tensor) and not output.isfinite().all():
            row = 0
            if output.shape[0] == tokens.shape[0]:
                row = int((~output.isfinite()).flatten(1).any(1).nonzero()[0])
            found.append((name, row))

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.ModuleList)
    ]
    try:
        with torch.no_grad():
            model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        name, row = found[0]
        return f"the output of {name}", row
    return "the logits or the loss, after the last layer", None


def last_bad_gradient(model: GPT) -> str:
    """Return the layer nearest the output whose gradient is not finite: backward meets it first."""
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    return f"the gradient of {bad[-1]}" if bad else "the sum of squares of gradients"


def first_bad(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity, or None."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)
