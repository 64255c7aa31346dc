"""A pairwise cover of `ModelConfig`: every two legal choices of two fields meet in some case."""

from functools import cache
from itertools import combinations

import torch
from allpairspy import AllPairs

from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

VOCAB, WIDTH, LENGTH, LAYERS, SEQ_LEN = 11, 16, 9, 2, 12

CHOICES = {
    "position": [
        "none",
        "learned",
        "sinusoidal",
        "rope",
        {"kind": "rope", "fraction": 0.5, "theta": 50.0},
        "alibi",
        {"kind": "t5", "buckets": 6, "max_distance": 9},
    ],
    "norm": [
        "none",
        "dyt",
        *(
            {"kind": kind, "affine": affine, "eps": 1e-3}
            for kind, affines in {
                "layer": ("scale_shift", "scale", "none"),
                "sigma": ("scale_shift", "scale", "none"),
                "rms": ("scale", "none"),
            }.items()
            for affine in affines
        ),
    ],
    "block": ["pre", "post", "parallel", "plain", "peri"],
    "mixer": [
        "none",
        "attention",
        {"kind": "attention", "n_kv_heads": 2, "dropout": 0.1, "qk_norm": False},
        {"kind": "attention", "n_kv_heads": 1, "qk_norm": False},
        {"kind": "attention", "window": 3, "qk_norm": False},
        {"kind": "attention", "qk_norm": True},
        {"kind": "attention", "window": 2, "n_kv_heads": 2, "qk_norm": True},
        {"kind": "attention", "n_heads": 2, "window": 100, "qk_norm": False},
    ],
    "mlp": [
        "gelu",
        {"kind": "gelu", "approximate": "tanh"},
        "relu",
        "relu2",
        "swiglu",
        "geglu",
        {"kind": "swiglu", "d_ff": 5},
        {"kind": "relu", "d_ff": 7},
    ],
    "tie_embeddings": [True, False],
    "logit_scale": ["none", "inv_sqrt_d", 0.3],
    "soft_cap": [None, 2.0],
    "bias": [False, True],
    "init": ["gpt2", {"kind": "gaussian", "std": 0.1}, "xavier", "torch"],
    "dropout": [0.0, 0.4],
}


def config_of(choice):
    return decode(
        ModelConfig,
        {
            "vocab_size": VOCAB,
            "max_seq_len": SEQ_LEN,
            "d_model": WIDTH,
            "n_layers": LAYERS,
            **dict(zip(CHOICES, choice, strict=True)),
        },
    )


def legal_pairs():
    """All pairs of two fields' values that the config accepts; the rest of the fields default."""
    for one, other in combinations(CHOICES, 2):
        for a in range(len(CHOICES[one])):
            for b in range(len(CHOICES[other])):
                if _accepts({one: CHOICES[one][a], other: CHOICES[other][b]}):
                    yield one, a, other, b


def _accepts(fields):
    # Without attention the default position, rope, has nothing to turn.
    default = {} if "position" in fields else {"position": "none"}
    try:
        decode(ModelConfig, {"d_model": WIDTH, **default, **fields})
    except ConfigError:
        return False
    return True


def _label(index, row):
    def word(value):
        parts = value.values() if isinstance(value, dict) else [value]
        return "+".join(str(part) for part in parts)

    return "-".join([f"{index:02}", *map(word, row[:5])])  # the five families tell enough


def _rows():
    """With attention everything is legal; without it, each of the other choices once will do."""
    first, *others = CHOICES["mixer"]
    yield from AllPairs({**CHOICES, "mixer": others}.values())
    alone = CHOICES | {
        "position": ["none", "learned", "sinusoidal"],
        "block": ["pre", "post", "plain", "peri"],
        "mixer": [first],
    }
    for i in range(max(map(len, alone.values()))):
        yield [values[i % len(values)] for values in alone.values()]


CASES = {_label(index, row): config_of(row) for index, row in enumerate(_rows())}


@cache
def shaken(name):
    """The case in float64, every weight moved at random: no norm is the identity, no bias is 0."""
    model = GPT.create(CASES[name], seed=1).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.3 * noise
    return model


def tokens_of(*shape, seed=3):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))
