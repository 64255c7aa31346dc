"""The choices of a model as the kernels number them.

A variant without a number is no error: such a model is trained and read by PyTorch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from assay.family import Variant
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import RMSNormConfig
from assay.nn.position import Position


def unknown(config: ModelConfig) -> str | None:
    """Return the first choice of a model that the kernels do not know, or None."""
    for name in ("norm", "block", "mlp", "position", "mixer"):
        variant = getattr(config, name)
        if variant.kernel_kind() is None:
            return f"model.{name}={variant.kind}"
    return None


def unsupported(model: GPT) -> str | None:
    """Return what of `model` the kernels cannot read, in a few words, or None."""
    for parameter in model.parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            return f"weights in {parameter.dtype} on {parameter.device}".replace("torch.", "")
    return unknown(model.config)


def number_of(variant: Variant) -> int:
    """Return the number of a variant that the kernels know."""
    number = variant.kernel_kind()
    assert number is not None, f"{variant.kind} is not known to the kernels"
    return number


RMS = number_of(RMSNormConfig())
"""The norm of queries and keys."""


def numbers_of(config: ModelConfig) -> dict[str, int]:
    """Return sizes and choices by the names of the structs."""
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "n_groups": config.n_kv_heads,
        "d_head": config.d_head,
        "d_ff": config.mlp.width(config.d_model),
        "window": config.window or 0,
        "block": number_of(config.block),
        "activation": number_of(config.mlp),
        "gated": config.mlp.gated,
    }


def slopes_of(position: Position) -> Float[Tensor, " H"] | None:
    """Return what each head takes from a score per token of distance, as the kernels know it."""
    bias = position.score_bias(torch.ones(1, dtype=torch.int64), torch.float32)
    return None if bias is None else -bias[:, 0].contiguous()
