"""GPT-2: learned positions, biases everywhere, matrices stored in × out.

Source: Radford et al. 2019, GPT-2 report, section 2.3; names of `transformers.GPT2LMHeadModel`.
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
from assay.hf.fields import Fields
from assay.hf.names import STACKED, STACKED_TRANSPOSED, TRANSPOSED, Entry, alike, head, packed
from assay.nn.block import PreConfig
from assay.nn.model import ModelConfig
from assay.nn.norm import LayerNormConfig
from assay.nn.position import LearnedConfig


def _read(fields: Fields) -> dict[str, Any]:
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    dropout = fields.number("resid_pdrop", 0.1)
    if fields.number("embd_pdrop", 0.1) != dropout:
        fields.refuse("embd_pdrop", f"resid_pdrop, which is {dropout}")
    act = fields.choice("activation_function", "gelu_new", PLAIN_ACTIVATIONS)
    return {
        "vocab_size": fields.integer("vocab_size", 50_257),
        "max_seq_len": fields.integer("n_positions", 1024),
        "d_model": fields.integer("n_embd", 768),
        "n_layers": fields.integer("n_layer", 12),
        "position": "learned",
        "norm": {"kind": "layer", "eps": fields.number("layer_norm_epsilon", 1e-5)},
        "mixer": {
            "kind": "attention",
            "qk_norm": False,
            "n_heads": fields.integer("n_head", 12),
            "dropout": fields.number("attn_pdrop", 0.1),
        },
        "mlp": {**act, "d_ff": fields.maybe_integer("n_inner")},
        "tie_embeddings": fields.flag("tie_word_embeddings", True),
        "bias": True,
        "dropout": dropout,
        "init": {"kind": "gpt2", "std": fields.number("initializer_range", 0.02)},
    }


def _needs(config: ModelConfig) -> Mapping[str, bool]:
    norm = config.norm
    return {
        "block=pre": isinstance(config.block, PreConfig),
        "position=learned": isinstance(config.position, LearnedConfig),
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
    assert isinstance(config.norm, LayerNormConfig)
    return {
        "n_positions": config.max_seq_len,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.mlp.width(config.d_model),
        "activation_function": activation_name(config.mlp),
        "layer_norm_epsilon": config.norm.eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": init_std(config),
    }


def _entries(config: ModelConfig) -> Iterator[Entry]:
    yield Entry("transformer.wte.weight", ("embed.weight",))
    yield Entry("transformer.wpe.weight", ("position.table.weight",))
    for index in range(config.n_layers):
        theirs, ours = f"transformer.h.{index}", f"blocks.{index}"
        norms = ((f"{theirs}.ln_1", f"{ours}.mixer_norm"), (f"{theirs}.ln_2", f"{ours}.mlp_norm"))
        yield from alike(norms, bias=True)
        yield from packed(
            f"{theirs}.attn.c_attn", f"{ours}.mixer", weight=STACKED_TRANSPOSED, bias=STACKED
        )
        matrices = (
            (f"{theirs}.attn.c_proj", f"{ours}.mixer.out_proj"),
            (f"{theirs}.mlp.c_fc", f"{ours}.mlp.up"),
            (f"{theirs}.mlp.c_proj", f"{ours}.mlp.down"),
        )
        yield from alike(matrices, bias=True, weight_layout=TRANSPOSED)
    yield from alike([("transformer.ln_f", "final_norm")], bias=True)
    yield from head(config.tied)


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    buffers=re.compile(r"h\.\d+\.attn\.(bias|masked_bias)"),
    read=_read,
    needs=_needs,
    write=_write,
    entries=_entries,
)
