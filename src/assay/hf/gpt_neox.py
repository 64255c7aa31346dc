"""GPT-NeoX and Pythia: attention beside the MLP, a part of each head turned, packed per head.

Source: Black et al. 2022, arXiv:2204.06745, section 2.1; names of
`transformers.GPTNeoXForCausalLM`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from assay.hf.family import (
    PLAIN_ACTIVATIONS,
    Family,
    activation_name,
    has_activation,
    init_std,
    plain_attention,
)
from assay.hf.fields import Fields, rope
from assay.hf.names import Entry, alike, head, packed, per_head
from assay.nn.block import ParallelConfig, PreConfig
from assay.nn.model import ModelConfig
from assay.nn.norm import LayerNormConfig
from assay.nn.position import RopeConfig


def _read(fields: Fields) -> dict[str, Any]:
    fields.only("attention_bias", True)  # the MLP has biases whatever this field says
    act = fields.choice("hidden_act", "gelu", PLAIN_ACTIVATIONS)
    parallel = fields.flag("use_parallel_residual", True)
    return {
        "vocab_size": fields.integer("vocab_size", 50_432),
        "max_seq_len": fields.integer("max_position_embeddings", 2048),
        "d_model": fields.integer("hidden_size", 6144),
        "n_layers": fields.integer("num_hidden_layers", 44),
        "position": rope(fields, theta_name="rotary_emb_base", fraction_name="rotary_pct"),
        "norm": {"kind": "layer", "eps": fields.number("layer_norm_eps", 1e-5)},
        "block": "parallel" if parallel else "pre",
        "mixer": {
            "kind": "attention",
            "qk_norm": False,
            "n_heads": fields.integer("num_attention_heads", 64),
            "dropout": fields.number("attention_dropout", 0.0),
        },
        "mlp": {**act, "d_ff": fields.integer("intermediate_size", 24_576)},
        "tie_embeddings": fields.flag("tie_word_embeddings", False),
        "bias": True,
        "dropout": fields.number("hidden_dropout", 0.0),
        "init": {"kind": "gaussian", "std": fields.number("initializer_range", 0.02)},
    }


def _needs(config: ModelConfig) -> Mapping[str, bool]:
    norm = config.norm
    return {
        "block=parallel or block=pre": (isinstance(config.block, ParallelConfig | PreConfig)),
        "position=rope": isinstance(config.position, RopeConfig),
        "norm=layer with affine=scale_shift": (
            isinstance(norm, LayerNormConfig) and norm.affine == "scale_shift"
        ),
        "mixer=attention with as many n_kv_heads as n_heads, no window, no qk_norm": (
            plain_attention(config)
        ),
        "an mlp without a gate": has_activation(config.mlp, gated=False),
        "bias=true": config.bias,
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    position, norm = config.position, config.norm
    assert isinstance(position, RopeConfig)
    assert isinstance(norm, LayerNormConfig)
    return {
        "max_position_embeddings": config.max_seq_len,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.mlp.width(config.d_model),
        "hidden_act": activation_name(config.mlp),
        "layer_norm_eps": norm.eps,
        "rotary_emb_base": position.theta,
        "rotary_pct": position.fraction,
        "use_parallel_residual": isinstance(config.block, ParallelConfig),
        "attention_bias": True,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": init_std(config),
    }


def _entries(config: ModelConfig) -> Iterator[Entry]:
    yield Entry("gpt_neox.embed_in.weight", ("embed.weight",))
    heads = per_head(config.n_heads)
    for index in range(config.n_layers):
        theirs, ours = f"gpt_neox.layers.{index}", f"blocks.{index}"
        modules = (
            (f"{theirs}.input_layernorm", f"{ours}.mixer_norm"),
            (f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norm"),
            (f"{theirs}.attention.dense", f"{ours}.mixer.out_proj"),
            (f"{theirs}.mlp.dense_h_to_4h", f"{ours}.mlp.up"),
            (f"{theirs}.mlp.dense_4h_to_h", f"{ours}.mlp.down"),
        )
        yield from alike(modules, bias=True)
        qkv = f"{theirs}.attention.query_key_value"
        yield from packed(qkv, f"{ours}.mixer", weight=heads, bias=heads)
    yield from alike([("gpt_neox.final_layer_norm", "final_norm")], bias=True)
    yield from head(config.tied)


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    buffers=re.compile(r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"),
    read=_read,
    needs=_needs,
    write=_write,
    entries=_entries,
)
