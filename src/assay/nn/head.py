"""From features to logits: the fields `logit_scale` and `soft_cap` of `ModelConfig`.

Shapes: `...` any leading dimensions, D model width, V vocabulary.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

LogitScale = Literal["none", "inv_sqrt_d"] | PositiveFloat


def logit_factor(scale: LogitScale, d_model: int) -> float:
    """Return the number that multiplies the logits; `inv_sqrt_d` is 1/√D (the article's 2.4)."""
    if isinstance(scale, str):
        return 1.0 if scale == "none" else 1 / math.sqrt(d_model)
    return scale


def unembed(
    features: Float[Tensor, "... D"],
    weight: Float[Tensor, "V D"],
    *,
    factor: float,
    soft_cap: float | None,
) -> Float[Tensor, "... V"]:
    r"""Return $z = s\,x W^T$, or $c \tanh(z / c)$ under a soft cap c.

    Source: Gemma Team 2024, arXiv:2408.00118, section 2, for the cap.
    """
    if factor != 1.0:  # on D channels rather than V logits
        features = features * factor
    logits = F.linear(features, weight)
    return logits if soft_cap is None else soft_cap * (logits / soft_cap).tanh()


def at_least_float32(logits: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return logits in the precision a loss is taken in: float32, or float64 if they are that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
