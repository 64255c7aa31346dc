"""The choices of a model as the kernels number them.

A variant that is not named here is no error: such a model is trained and read by PyTorch.
"""

import torch

from assay.nn.mixer import AttentionConfig
from assay.nn.model import GPT, ModelConfig

NORMS = {"none": 0, "layer": 1, "sigma": 2, "rms": 3}
_BLOCKS = {"pre": 0, "post": 1, "parallel": 2, "plain": 3}
_ACTIVATIONS = {"gelu": 0, "geglu": 0, "relu": 2, "relu2": 3, "swiglu": 4}
_GELU_BY_TANH = 1
_POSITIONS = ("none", "learned", "sinusoidal", "rope", "alibi")
_MIXERS = ("none", "attention")


def unknown(config: ModelConfig) -> str | None:
    """Return the first choice of a model that the kernels do not know, or None."""
    for name, known in (
        ("norm", NORMS),
        ("block", _BLOCKS),
        ("mlp", _ACTIVATIONS),
        ("position", _POSITIONS),
        ("mixer", _MIXERS),
    ):
        if (kind := getattr(config, name).kind) not in known:
            return f"model.{name}={kind}"
    return None


def unsupported(model: GPT) -> str | None:
    """Return what of `model` the kernels cannot read, in a few words, or None."""
    for parameter in model.parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            return f"weights in {parameter.dtype} on {parameter.device}".replace("torch.", "")
    return unknown(model.config)


def numbers_of(config: ModelConfig) -> dict[str, int]:
    """Return sizes and choices by the names of the structs."""
    mixer, attends = config.mixer, isinstance(config.mixer, AttentionConfig)
    by_tanh = getattr(config.mlp, "approximate", "none") == "tanh"
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_heads": mixer.n_heads,
        "n_groups": mixer.kv_heads if isinstance(mixer, AttentionConfig) else 0,
        "d_head": config.d_model // mixer.n_heads if attends else 0,
        "d_ff": config.mlp.width(config.d_model),
        "window": mixer.window or 0,
        "block": _BLOCKS[config.block.kind],
        "activation": _GELU_BY_TANH if by_tanh else _ACTIVATIONS[config.mlp.kind],
        "gated": config.mlp.gated,
    }
