"""Llama, and what differs from it little: Mistral has a window, Qwen 3 norms of queries and keys.

All have rotary positions, RMS norms and a gated MLP.

Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Jiang et al. 2023, arXiv:2310.06825,
section 2; Yang et al. 2025, arXiv:2505.09388, section 2; names of `transformers.LlamaForCausalLM`,
`MistralForCausalLM` and `Qwen3ForCausalLM`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from assay.hf.family import (
    GATED_ACTIVATIONS,
    Family,
    activation_name,
    has_activation,
    init_std,
)
from assay.hf.fields import Fields, rope
from assay.hf.names import Entry, alike, head
from assay.nn.block import PreConfig
from assay.nn.mixer import QK_NORM_EPS, AttentionConfig
from assay.nn.model import ModelConfig
from assay.nn.norm import RMSNormConfig
from assay.nn.position import RopeConfig

_BUFFERS = re.compile(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def _read_llama(fields: Fields) -> dict[str, Any]:
    bias = fields.flag("attention_bias", False)
    if fields.flag("mlp_bias", False) != bias:
        fields.refuse("mlp_bias", f"the value of attention_bias, {str(bias).lower()}")
    sizes = (11_008, 2048)
    return {**_read(fields, sizes, fields.maybe_integer("num_key_value_heads"), None), "bias": bias}


def _read_mistral(fields: Fields) -> dict[str, Any]:
    fields.only("layer_types", None)
    window = fields.maybe_integer("sliding_window", left_out=4096)
    kv_heads = fields.maybe_integer("num_key_value_heads", left_out=8)
    return _read(fields, (14_336, 131_072), kv_heads, window)


def _read_qwen3(fields: Fields) -> dict[str, Any]:
    fields.only("attention_bias", False)
    fields.only("use_sliding_window", False)
    fields.each("layer_types", "full_attention")
    if fields.number("rms_norm_eps", 1e-6) != QK_NORM_EPS:
        fields.refuse("rms_norm_eps", f"{QK_NORM_EPS}, that of our norms of queries and keys")
    kv_heads = fields.maybe_integer("num_key_value_heads", left_out=32)
    read = _read(fields, (22_016, 32_768), kv_heads, None, vocab_size=151_936, d_head=128)
    return {**read, "mixer": {**read["mixer"], "qk_norm": True}}


def _read(
    fields: Fields,
    sizes: tuple[int, int],
    kv_heads: int | None,
    window: int | None,
    *,
    vocab_size: int = 32_000,
    d_head: int | None = None,
) -> dict[str, Any]:
    """Read what all have; `sizes` are the defaults of d_ff and of the context."""
    d_model = fields.integer("hidden_size", 4096)
    n_heads = fields.integer("num_attention_heads", 32)
    if (
        n_heads > 0
        and fields.integer("head_dim", d_head or d_model // n_heads) * n_heads != d_model
    ):
        fields.refuse("head_dim", f"hidden_size / num_attention_heads = {d_model / n_heads:g}")
    act = fields.choice("hidden_act", "silu", GATED_ACTIVATIONS)
    return {
        "vocab_size": fields.integer("vocab_size", vocab_size),
        "max_seq_len": fields.integer("max_position_embeddings", sizes[1]),
        "d_model": d_model,
        "n_layers": fields.integer("num_hidden_layers", 32),
        "position": rope(fields),
        "norm": {"kind": "rms", "eps": fields.number("rms_norm_eps", 1e-6)},
        "mixer": {
            "kind": "attention",
            "qk_norm": False,
            "n_heads": n_heads,
            "n_kv_heads": None if kv_heads == n_heads else kv_heads,
            "window": window,
            "dropout": fields.number("attention_dropout", 0.0),
        },
        "mlp": {**act, "d_ff": fields.integer("intermediate_size", sizes[0])},
        "tie_embeddings": fields.flag("tie_word_embeddings", False),
        "init": {"kind": "gaussian", "std": fields.number("initializer_range", 0.02)},
    }


def _needs(config: ModelConfig) -> dict[str, bool]:
    position, norm, mixer = config.position, config.norm, config.mixer
    return {
        "block=pre": isinstance(config.block, PreConfig),
        "position=rope with fraction=1": (
            isinstance(position, RopeConfig) and position.fraction == 1
        ),
        "norm=rms with affine=scale": (isinstance(norm, RMSNormConfig) and norm.affine == "scale"),
        "mixer=attention": isinstance(mixer, AttentionConfig),
        "mlp=swiglu or mlp=geglu": has_activation(config.mlp, gated=True),
        "dropout=0 outside the attention weights": config.dropout == 0,
    }


def _needs_llama(config: ModelConfig) -> Mapping[str, bool]:
    return {**_needs(config), **_no_qk_norm(config), "mixer.window=null": _no_window(config)}


def _needs_mistral(config: ModelConfig) -> Mapping[str, bool]:
    return {**_needs(config), **_no_qk_norm(config), "bias=false": not config.bias}


def _needs_qwen3(config: ModelConfig) -> Mapping[str, bool]:
    norm = config.norm
    return {
        **_needs(config),
        "qk_norm=true": _has_qk_norm(config),
        f"norm.eps={QK_NORM_EPS}": isinstance(norm, RMSNormConfig) and norm.eps == QK_NORM_EPS,
        "mixer.window=null": _no_window(config),
        "bias=false": not config.bias,
    }


def _no_window(config: ModelConfig) -> bool:
    return config.window is None


def _no_qk_norm(config: ModelConfig) -> Mapping[str, bool]:
    return {"qk_norm=false": not _has_qk_norm(config)}


def _has_qk_norm(config: ModelConfig) -> bool:
    return isinstance(config.mixer, AttentionConfig) and config.mixer.qk_norm


def _write(config: ModelConfig) -> dict[str, Any]:
    position, norm, mixer = config.position, config.norm, config.mixer
    assert isinstance(position, RopeConfig)
    assert isinstance(norm, RMSNormConfig)
    assert isinstance(mixer, AttentionConfig)
    return {
        "max_position_embeddings": config.max_seq_len,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": mixer.n_heads,
        "num_key_value_heads": mixer.kv_heads,
        "intermediate_size": config.mlp.width(config.d_model),
        "hidden_act": activation_name(config.mlp),
        "rms_norm_eps": norm.eps,
        "rope_theta": position.theta,
        "attention_dropout": mixer.dropout,
        "initializer_range": init_std(config),
    }


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), "attention_bias": config.bias, "mlp_bias": config.bias}


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), "sliding_window": config.window}


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), "head_dim": config.d_head}


def _entries(config: ModelConfig) -> Iterator[Entry]:
    yield Entry("model.embed_tokens.weight", ("embed.weight",))
    for index in range(config.n_layers):
        theirs, ours = f"model.layers.{index}", f"blocks.{index}"
        norms = (
            (f"{theirs}.input_layernorm", f"{ours}.mixer_norm"),
            (f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norm"),
            *_qk_norms(config, theirs, ours),
        )
        yield from alike(norms, bias=False)
        matrices = (
            (f"{theirs}.self_attn.q_proj", f"{ours}.mixer.q_proj"),
            (f"{theirs}.self_attn.k_proj", f"{ours}.mixer.k_proj"),
            (f"{theirs}.self_attn.v_proj", f"{ours}.mixer.v_proj"),
            (f"{theirs}.self_attn.o_proj", f"{ours}.mixer.out_proj"),
            (f"{theirs}.mlp.gate_proj", f"{ours}.mlp.gate"),
            (f"{theirs}.mlp.up_proj", f"{ours}.mlp.up"),
            (f"{theirs}.mlp.down_proj", f"{ours}.mlp.down"),
        )
        yield from alike(matrices, bias=config.bias)
    yield from alike([("model.norm", "final_norm")], bias=False)
    yield from head(config.tied)


def _qk_norms(config: ModelConfig, theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for name in ("q_norm", "k_norm") if _has_qk_norm(config) else ():
        yield f"{theirs}.self_attn.{name}", f"{ours}.mixer.{name}"


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    buffers=_BUFFERS,
    read=_read_llama,
    needs=_needs_llama,
    write=_write_llama,
    entries=_entries,
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    prefix="model.",
    buffers=_BUFFERS,
    read=_read_mistral,
    needs=_needs_mistral,
    write=_write_mistral,
    entries=_entries,
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    prefix="model.",
    buffers=_BUFFERS,
    read=_read_qwen3,
    needs=_needs_qwen3,
    write=_write_qwen3,
    entries=_entries,
)
