"""Tiny models of Hugging Face with random weights: the oracle. Nothing is downloaded."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_positions": 40,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "layer_norm_epsilon": 3e-3,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "max_position_embeddings": 40,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 3e-3,
    "rope_theta": 123.0,
}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 5}
QWEN3 = LLAMA | {"model_type": "qwen3", "rms_norm_eps": 1e-6, "head_dim": 8}
NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 61,
    "max_position_embeddings": 40,
    "hidden_size": 64,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "layer_norm_eps": 3e-3,
    "rotary_pct": 0.25,
    "rotary_emb_base": 123.0,
}

MODELS = {
    "gpt2": GPT2,
    "gpt2-untied": GPT2 | {"tie_word_embeddings": False},
    "gpt2-inner-relu": GPT2 | {"n_inner": 50, "activation_function": "relu"},
    "gpt2-exact-gelu": GPT2 | {"activation_function": "gelu"},
    "llama": LLAMA,
    "llama-tied": LLAMA | {"tie_word_embeddings": True},
    "llama-mha-biases": LLAMA
    | {"num_key_value_heads": None, "attention_bias": True, "mlp_bias": True},
    "llama-geglu": LLAMA | {"hidden_act": "gelu", "num_key_value_heads": 1},
    "mistral-window": MISTRAL,
    "mistral-no-window": MISTRAL | {"sliding_window": None},
    "qwen3": QWEN3,
    "qwen3-tied-mha": QWEN3 | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "neox": NEOX,
    "neox-not-parallel": NEOX | {"use_parallel_residual": False},
    "neox-whole-heads": NEOX | {"rotary_pct": 1.0, "hidden_act": "gelu_new"},
    "neox-tied": NEOX | {"tie_word_embeddings": True, "hidden_act": "relu"},
}

# GPT-2 computes all in float64 if asked to. The others round some steps to float32 (2^-24 = 6e-8)
# whatever the model's dtype: the angles of rope, the softmax of eager attention, Llama's RMS norm.
# A few dozen such roundings on logits of size 1 stay below 1e-5; a wrong weight, pair, norm or
# eps moves them by more than 1e-3, since weights are large and eps is 3e-3; but 1e-6 in Qwen 3.
TOLERANCES = {"gpt2": 1e-10, "llama": 1e-5, "mistral": 1e-5, "qwen3": 1e-5, "gpt_neox": 1e-5}


def build(fields):
    config = AutoConfig.for_model(**fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # biases and norms too, which begin as 0 and 1
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((1.0 if parameter.dim() == 1 else 0.0) + 0.3 * noise)
    return model
