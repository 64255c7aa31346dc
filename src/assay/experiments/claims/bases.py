"""What claims train upon, at each budget; equal configs are trained once for all claims.

Everything that a machine could choose by itself is chosen here, so that the bits repeat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.config import RunConfig
from assay.experiments.claim import Budget
from assay.experiments.tasks.train import Train
from assay.presets import nanogpt_char
from assay.schema import override

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a budget buys."""

    d_model: int
    n_layers: int
    n_heads: int
    seq_len: int
    batch_size: int
    steps: int
    lr: float
    seeds: int


EXTENTS: Mapping[Budget, Extent] = {
    "quick": Extent(32, 2, 2, 32, 16, 60, 1e-2, 3),
    "laptop": Extent(64, 3, 2, 64, 16, 400, 5e-3, 5),
    "full": Extent(384, 6, 6, 256, 64, 5000, 1e-3, 10),
}


def base(budget: Budget, *, seed: int = 0, changes: Mapping[str, Any] = NOTHING) -> RunConfig:
    """Return the base of a budget, with dotted fields changed.

    A GPT-2 of small size upon the characters of Shakespeare: learned positions, LayerNorm before
    each branch, GELU, tied, no biases; AdamW over a cosine.
    """
    extent = EXTENTS[budget]
    fields = {
        "model.d_model": extent.d_model,
        "model.n_layers": extent.n_layers,
        "model.max_seq_len": extent.seq_len,
        "model.mixer.n_heads": extent.n_heads,
        "data.tokenizer": "char",
        "train.seed": seed,
        "train.steps": extent.steps,
        "train.batch_size": extent.batch_size,
        "train.optimizer": {"kind": "adamw", "lr": extent.lr},
        "train.log_every": 10,
        "train.checkpoint_every": 0,
        "eval.every": extent.steps,
        "eval.max_tokens": 4096,
        "eval.final_max_tokens": 65_536,
    }
    if budget != "full":
        fields |= {
            "train.device": "cpu",
            "train.precision": "fp32",
            "train.attention": "fused",
            "train.compile": "off",
        }
    return override(RunConfig(model=nanogpt_char()), fields | dict(changes))


def seeds(budget: Budget) -> range:
    """Return the seeds of a budget."""
    return range(EXTENTS[budget].seeds)


def trained(budget: Budget, changes: Mapping[str, Any] = NOTHING) -> list[Train]:
    """Return the training of an arm under each seed of a budget."""
    return [Train(run=base(budget, seed=seed, changes=changes)) for seed in seeds(budget)]
