"""Models in which every two choices that the kernels know meet, no weight at its start."""

import torch
from allpairspy import AllPairs

from assay.nn.block import BLOCKS
from assay.nn.mlp import MLPS
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import NORMS
from assay.nn.position import POSITIONS
from assay.schema import decode

VOCAB, LENGTH = 37, 96  # longer than a block of queries, so that attention is taken in two
CHOICES = {
    "position": [
        *(c().kind for c in POSITIONS if c().kernel_kind() is not None),
        {"kind": "rope", "fraction": 0.5},
    ],
    "norm": [
        *(c().kind for c in NORMS if c().kernel_kind() is not None),
        {"kind": "layer", "affine": "none"},
        {"kind": "layer", "affine": "scale"},
        {"kind": "sigma", "affine": "scale", "eps": 0.1},
        {"kind": "rms", "affine": "none"},
    ],
    "block": [c().kind for c in BLOCKS if c().kernel_kind() is not None],
    "mlp": [
        *(c().kind for c in MLPS if c().kernel_kind() is not None),
        {"kind": "gelu", "approximate": "tanh"},
    ],
    "mixer": [
        {"kind": "attention", "qk_norm": False},
        {"kind": "attention", "n_kv_heads": 2, "qk_norm": False},
        {"kind": "attention", "n_kv_heads": 1, "qk_norm": True},
        {"kind": "attention", "window": 5, "qk_norm": False},
        {"kind": "attention", "n_heads": 2, "window": 70, "qk_norm": True},
    ],
    "d_model": [32, 48],  # heads of 8 and 12 channels: with and without a rest in every vector
    "bias": [False, True],
    "tie_embeddings": [True, False],
    "soft_cap": [None, 3.0],
    "logit_scale": ["none", 0.3],
}
_ALONE = CHOICES | {
    "position": ["none", "learned", "sinusoidal"],
    "block": ["pre", "post", "plain"],
    "mixer": ["none"],
}


def config_of(**fields):
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 32, "n_layers": 2}
    return decode(ModelConfig, shape | fields)


def _rows():
    yield from AllPairs(CHOICES.values())
    for i in range(8):
        yield [values[i % len(values)] for values in _ALONE.values()]


CONFIGS = [config_of(**dict(zip(CHOICES, row, strict=True))) for row in _rows()]


def label(config):
    kinds = (config.position, config.norm, config.block, config.mixer, config.mlp)
    return "-".join(part.kind for part in kinds)


def model_of(config, seed=1):
    """In float32; every weight is moved at random, so that no norm is the identity."""
    model = GPT.create(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def tokens_of(rows=3, seq_len=70, seed=3):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (rows, seq_len + 1), generator=draw)
