"""Small models of every architecture the families' tuples name, with nothing at its start value."""

import torch
from allpairspy import AllPairs

from assay.nn.block import BLOCKS
from assay.nn.mlp import MLPS
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import NORMS
from assay.nn.position import POSITIONS
from assay.schema import decode

VOCAB, LENGTH = 37, 24
MIXERS = [
    {"kind": "attention", "qk_norm": False},
    {"kind": "attention", "n_kv_heads": 2, "qk_norm": False},
    {"kind": "attention", "n_kv_heads": 1, "qk_norm": True},
    {"kind": "attention", "window": 5, "qk_norm": False},
    {"kind": "attention", "n_heads": 2, "window": 1, "qk_norm": True},
]
CHOICES = {
    "position": [
        *(c().kind for c in POSITIONS if c().kernel_kind() is not None),
        {"kind": "rope", "fraction": 0.5},
    ],
    "norm": [
        *(c().kind for c in NORMS if c().kernel_kind() is not None),
        {"kind": "layer", "affine": "none"},
        {"kind": "sigma", "affine": "scale", "eps": 0.1},
        {"kind": "rms", "affine": "none"},
    ],
    "block": [c().kind for c in BLOCKS if c().kernel_kind() is not None],
    "mlp": [
        *(c().kind for c in MLPS if c().kernel_kind() is not None),
        {"kind": "gelu", "approximate": "tanh"},
        "swiglu",
    ],
    "mixer": MIXERS,
    "d_model": [32, 40],  # a head of 8 or 10 channels: with and without a rest in every vector
    "bias": [False, True],
    "tie_embeddings": [True, False],
    "soft_cap": [None, 3.0],
    "logit_scale": ["none", 0.3],
}
ALONE = CHOICES | {
    "position": ["none", "learned", "sinusoidal"],
    "block": ["pre", "post", "plain"],
    "mixer": ["none"],
}


def _config(row):
    fields = dict(zip(CHOICES, row, strict=True))
    if fields["d_model"] == 40 and fields["position"] == {"kind": "rope", "fraction": 0.5}:
        fields["position"] = {"kind": "rope", "fraction": 0.8}  # an even number of channels turns
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "n_layers": 2}
    return decode(ModelConfig, shape | fields)


def _rows():
    yield from AllPairs(CHOICES.values())
    for i in range(10):
        yield [values[i % len(values)] for values in ALONE.values()]


CONFIGS = [_config(row) for row in _rows()]


def label(config):
    kinds = (config.position, config.norm, config.block, config.mixer, config.mlp)
    return "-".join(part.kind for part in kinds)


def model_of(config, seed=1):
    """In float32; every weight is moved at random, so that no norm is the identity."""
    model = GPT.create(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def small(**fields):
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 32, "n_layers": 2}
    return model_of(decode(ModelConfig, shape | fields))
