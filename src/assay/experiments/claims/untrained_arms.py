"""Models before training, by initialisation, that write; the trained base writes beside them."""

from collections.abc import Mapping
from typing import Any

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import EXTENTS, base, seeds
from assay.experiments.tasks.text import ByPosition

VOCABULARY = 85  # characters of the plays, about
ARMS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {},
    "gpt2_untied": {"model.tie_embeddings": False},
    "torch_untied": {"model.init": "torch", "model.tie_embeddings": False},
    "torch_tied": {"model.init": "torch"},
    "torch_scaled": {"model.init": "torch", "model.logit_scale": "inv_sqrt_d"},
}
_TEXTS: Mapping[Budget, int] = {"quick": 100, "laptop": 400, "full": 2000}
STRETCHES = 4  # of equal length, so that shuffles err alike in all


def by_arm(budget: Budget) -> dict[str, list[ByPosition]]:
    """Return the tasks of each initialisation, and of the trained base, one a seed."""
    changes = {"model.vocab_size": VOCABULARY}
    found = {
        arm: [_task(budget, seed, changes | dict(own), trained=False) for seed in seeds(budget)]
        for arm, own in ARMS.items()
    }
    return found | {"trained": [_task(budget, s, {}, trained=True) for s in seeds(budget)]}


def _task(budget: Budget, seed: int, changes: Mapping[str, Any], *, trained: bool) -> ByPosition:
    length = EXTENTS[budget].seq_len // STRETCHES
    return ByPosition(
        run=base(budget, seed=seed, changes=changes),
        trained=trained,
        n_texts=_TEXTS[budget],
        edges=tuple(1 + length * place for place in range(STRETCHES + 1)),
        seed=seed,
    )
