"""Tied and untied models of one shape, of one number of parameters, and of one number of FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from assay.config import RunConfig
from assay.experiments.claim import Budget
from assay.experiments.claims.bases import base, seeds
from assay.experiments.outcome import Size
from assay.experiments.tasks.loss_parts import FewTokens, LossParts
from assay.experiments.tasks.train import Train

Arm = Literal["tied", "untied", "narrow", "longer"]
"""`untied` is as wide as the tied one, so it costs as many FLOPs; `narrow` is untied and has as
many parameters; `longer` is `narrow` trained for as many FLOPs."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a budget buys."""

    widths: tuple[int, ...]
    vocab: int
    n_layers: int
    steps: int
    few_tokens: int
    few_steps: int
    targets: int


SIZES: Mapping[Budget, Sizes] = {
    "quick": Sizes((24, 32), 512, 2, 40, 4096, 60, 2048),
    "laptop": Sizes((32, 64, 96), 1024, 2, 300, 16_384, 400, 32_768),
    "full": Sizes((192, 384, 768), 8192, 6, 5000, 1 << 20, 2000, 1 << 18),
}
FEW: tuple[Arm, ...] = ("tied", "untied", "narrow")
"""Those that are trained on little text, and whose loss is taken apart."""
ENDS = (16, 64, 256)
"""Last ranks of the buckets of tokens, from the most frequent on."""


def middle(budget: Budget) -> int:
    """Return the width at which every arm is trained and looked into."""
    widths = SIZES[budget].widths
    return widths[len(widths) // 2]


def arms_at(budget: Budget, width: int) -> tuple[Arm, ...]:
    """Return the arms of a width."""
    plain: tuple[Arm, ...] = ("tied", "untied", "narrow")
    return (*plain, "longer") if width == middle(budget) else plain


@cache
def config(budget: Budget, width: int, arm: Arm, *, seed: int = 0) -> RunConfig:
    """Return the config of an arm, its vocabulary known."""
    if arm in ("tied", "untied"):
        return _config(budget, width, tied=arm == "tied", seed=seed)
    narrow = narrowed(budget, width)
    if arm == "narrow":
        return _config(budget, narrow, tied=False, seed=seed)
    per_step = [
        Size.of(_config(budget, d_model, tied=False)).train_flops / SIZES[budget].steps
        for d_model in (width, narrow)
    ]
    steps = round(SIZES[budget].steps * per_step[0] / per_step[1])
    return _config(budget, narrow, tied=False, seed=seed, steps=steps)


@cache
def narrowed(budget: Budget, width: int) -> int:
    """Return the width at which an untied model has the parameters nearest to a tied one's."""
    target = Size.of(_config(budget, width, tied=True)).parameters
    heads = base(budget).model.n_heads

    def apart(d_model: int) -> float:
        return abs(Size.of(_config(budget, d_model, tied=False)).parameters - target)

    return min(range(heads, width, heads), key=apart)


def trainings(budget: Budget, width: int, arm: Arm) -> list[Train]:
    """Return the training of an arm under each seed."""
    return [Train(run=config(budget, width, arm, seed=seed)) for seed in seeds(budget)]


def loss_parts(budget: Budget, arm: Arm) -> list[LossParts]:
    """Return the looks at where the loss of an arm lies, at the middle width."""
    targets = SIZES[budget].targets
    return [
        LossParts(run=task.run, ends=ENDS, targets=targets)
        for task in trainings(budget, middle(budget), arm)
    ]


def few_tokens(budget: Budget, arm: Arm) -> list[FewTokens]:
    """Return trainings on little text, at the middle width."""
    sizes = SIZES[budget]
    return [
        FewTokens(
            run=_few(config(budget, middle(budget), arm, seed=seed), sizes.few_steps),
            tokens=sizes.few_tokens,
            every=sizes.few_steps // 10,
            targets=min(8192, sizes.targets),
        )
        for seed in seeds(budget)
    ]


def _few(found: RunConfig, steps: int) -> RunConfig:
    train = found.train.model_copy(update={"steps": steps})
    return found.model_copy(update={"train": train})


def _config(
    budget: Budget, width: int, *, tied: bool, seed: int = 0, steps: int | None = None
) -> RunConfig:
    sizes = SIZES[budget]
    steps = steps or sizes.steps
    changes: dict[str, Any] = {
        "data.tokenizer": {"kind": "bpe", "vocab_size": sizes.vocab},
        "model.vocab_size": sizes.vocab,
        "model.d_model": width,
        "model.n_layers": sizes.n_layers,
        "model.tie_embeddings": tied,
        "train.steps": steps,
        "eval.every": steps,
    }
    return base(budget, seed=seed, changes=changes)
