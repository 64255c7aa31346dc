"""Where a number stopped being finite."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from assay.nn.model import GPT


def first_bad_layer(model: GPT, tokens: Int[Tensor, "B T"]) -> str:
    """Return the first layer of a forward pass whose output is not finite, or what it could be."""
    if name := first_bad_weight(model):
        return f"the weights: {name} is already not finite"
    found: list[str] = []

    def look(name: str, output: object) -> None:
        if not found and isinstance(output, Tensor) and not output.isfinite().all():
            found.append(name)

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
    return f"the output of {found[0]}" if found else "the logits or the loss, after the last layer"


def last_bad_gradient(model: GPT) -> str:
    """Return the layer nearest the output whose gradient is not finite: backward meets it first."""
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    return f"the gradient of {bad[-1]}" if bad else "the sum of squares of gradients"


def first_bad_weight(model: nn.Module) -> str | None:
    """Return the first parameter that holds a NaN or an infinity, or None."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return name
    return None
