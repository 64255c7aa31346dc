"""What one normalisation does to a token, taken out of any model.

Shapes: D channels of one token.
"""

import torch
from torch import Tensor

from assay.nn.norm import NormConfig


def output_scale(norm: NormConfig, sigma: float, *, d_model: int) -> float:
    """Return the deviation of what comes out, where one of `sigma` with mean 0 goes in; float64.

    With the learned scale at 1: σ/√(σ² + ε) for `layer` and `rms`, σ/(σ + ε) for `sigma`.
    """
    x = torch.ones(1, d_model, dtype=torch.float64)
    x[:, 1::2] = -1  # mean 0 and deviation 1, exactly, for an even D
    with torch.no_grad():
        y = norm.build(d_model).double()(sigma * x)
    return float(y.std(correction=0))


def gradient_at_zero_variance(norm: NormConfig, *, d_model: int) -> Tensor:
    """Return the gradient that reaches a token whose channels are all 1, of one output; float32."""
    x = torch.ones(1, d_model, requires_grad=True)
    (gradient,) = torch.autograd.grad(norm.build(d_model)(x)[0, 0], x)
    return gradient[0]
