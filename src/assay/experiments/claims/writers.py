"""Who writes and who judges in the claims about text, and how many texts.

Writer and judge share neither text (each has its half of the plays) nor architecture nor seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.config import RunConfig
from assay.experiments.claim import Budget
from assay.experiments.claims.bases import base, seeds
from assay.experiments.tasks.text import Written
from assay.sampling import SamplingConfig

JUDGES = ("judge_bits", "ngram_bits")
_JUDGE_SEED = 1000  # no writer has it


@dataclass(frozen=True, slots=True)
class _Extent:
    """Sizes of a budget: the context of both models, in characters, is the length of a text."""

    length: int
    writer_steps: int
    judge_width: int
    judge_layers: int
    judge_steps: int


_EXTENTS: Mapping[Budget, _Extent] = {
    "quick": _Extent(48, 60, 48, 2, 80),
    "laptop": _Extent(128, 500, 96, 4, 600),
    "full": _Extent(256, 5000, 576, 8, 5000),
}


def writer(budget: Budget, seed: int) -> RunConfig:
    """Return the base of a budget with a longer context, on the first half, trained by Muon."""
    extent = _EXTENTS[budget]
    changes = {
        "data.text": ["shakespeare-1"],
        "model.max_seq_len": extent.length,
        "train.steps": extent.writer_steps,
        "train.optimizer": "muon",
        "eval.every": extent.writer_steps,
    }
    return base(budget, seed=seed, changes=changes)


def judge(budget: Budget) -> RunConfig:
    """Return a Llama-like model of bytes, larger than the writer, on the second half."""
    extent = _EXTENTS[budget]
    changes = {
        "data.text": ["shakespeare-2"],
        "data.tokenizer": "byte",
        "model.max_seq_len": extent.length,
        "model.d_model": extent.judge_width,
        "model.n_layers": extent.judge_layers,
        "model.position": "rope",
        "model.norm": "rms",
        "model.mlp": "swiglu",
        "train.steps": extent.judge_steps,
        "train.optimizer": "muon",
        "eval.every": extent.judge_steps,
    }
    return base(budget, seed=_JUDGE_SEED, changes=changes)


def written(budget: Budget, samplings: Sequence[SamplingConfig], n_samples: int) -> list[Written]:
    """Return the texts of every writer of a budget, all judged by the one judge."""
    return [
        Written(
            writer=writer(budget, seed),
            judge=judge(budget),
            samplings=tuple(samplings),
            n_samples=n_samples,
            length=_EXTENTS[budget].length,
            seed=seed,
        )
        for seed in seeds(budget)
    ]
