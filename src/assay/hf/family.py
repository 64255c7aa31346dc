"""What a Hugging Face family is, and what its members' modules have in common."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assay.hf.fields import Fields
from assay.hf.names import Entry
from assay.nn.init import GaussianConfig, GPT2InitConfig
from assay.nn.mixer import AttentionConfig
from assay.nn.mlp import MLPConfig
from assay.nn.model import ModelConfig


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of Hugging Face.

    Attributes:
        model_type: The name that `config.json` gives it.
        architecture: The class in transformers that has a language model's head.
        prefix: What that class puts before every name but the head's.
        buffers: Matches names, without the prefix, that are no weights and are passed over.
        read: From its config to the fields of a `ModelConfig`.
        needs: What a model must be to be written as one of this family: words, and whether it is.
        write: From a model's config to the fields of theirs, the common ones left out.
        entries: All its tensors.
    """

    model_type: str
    architecture: str
    prefix: str
    buffers: re.Pattern[str]
    read: Callable[[Fields], dict[str, Any]]
    needs: Callable[[ModelConfig], Mapping[str, bool]]
    write: Callable[[ModelConfig], dict[str, Any]]
    entries: Callable[[ModelConfig], Iterator[Entry]]

    def unmet(self, config: ModelConfig) -> str | None:
        """Return the first thing in which a model is not of this family."""
        plain_head = {
            "logit_scale=none": config.logit_scale in ("none", 1.0),
            "soft_cap=null": config.soft_cap is None,
        }
        needs = {**self.needs(config), **plain_head}
        return next((words for words, met in needs.items() if not met), None)


_TANH = {"kind": "gelu", "approximate": "tanh"}
PLAIN_ACTIVATIONS: dict[str, dict[str, str]] = {
    "gelu": {"kind": "gelu", "approximate": "none"},
    "gelu_python": {"kind": "gelu", "approximate": "none"},
    "gelu_new": _TANH,
    "gelu_fast": _TANH,
    "gelu_pytorch_tanh": _TANH,
    "relu": {"kind": "relu"},
    "relu2": {"kind": "relu2"},
}
"""Their names of the activations of an MLP of two matrices."""

GATED_ACTIVATIONS: dict[str, dict[str, str]] = {
    "silu": {"kind": "swiglu"},
    "swish": {"kind": "swiglu"},
    "gelu": {"kind": "geglu"},
}
"""Their names of the activations of an MLP of three matrices."""


def activation_name(mlp: MLPConfig) -> str:
    """Return their first name for what `mlp` computes."""
    known = GATED_ACTIVATIONS if mlp.gated else PLAIN_ACTIVATIONS
    return next(name for name, fields in known.items() if fields == _without_width(mlp))


def has_activation(mlp: MLPConfig, *, gated: bool) -> bool:
    """Whether they have a name for what `mlp` computes, with or without a gate."""
    known = GATED_ACTIVATIONS if gated else PLAIN_ACTIVATIONS
    return mlp.gated == gated and _without_width(mlp) in known.values()


def _without_width(mlp: MLPConfig) -> dict[str, Any]:
    fields = mlp.model_dump()
    fields.pop("d_ff", None)
    return fields


def plain_attention(config: ModelConfig) -> bool:
    """Whether every query head has its own keys and values, without window or norms."""
    mixer = config.mixer
    return (
        isinstance(mixer, AttentionConfig)
        and mixer.kv_heads == mixer.n_heads
        and mixer.window is None
        and not mixer.qk_norm
    )


def init_std(config: ModelConfig) -> float:
    """Return the standard deviation at the start, theirs where our rule has none."""
    return config.init.std if isinstance(config.init, GaussianConfig | GPT2InitConfig) else 0.02
