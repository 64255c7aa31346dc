"""Untrained models: the grid that the claims on initialisation stand on."""

from itertools import product
from typing import Any

import numpy as np

from assay.experiments.claim import Budget, Number
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.initial import Fault, InitialPanel
from assay.nn.model import ModelConfig
from assay.presets import gpt2, minigpt
from assay.schema import override

DELTA = 0.02
"""Nats: what counts as near ln V."""
Place = tuple[str, bool, str, int, int]
"""A cell: init, tying, scale, width, depth."""
_INITS = ("torch", "xavier", "gaussian", "gpt2")
_FAULTS: tuple[Fault, ...] = ("none", "leaking mask", "unshifted target", "no layers")
_SHAPES = {"quick": ((64, 2),), "laptop": ((64, 2), (64, 8), (256, 2)), "full": ((64, 2), (256, 8))}
_AMOUNTS = {"quick": (5, 32), "laptop": (20, 160), "full": (20, 160)}  # draws, rows of 64 tokens
_ROUNDS, _CUTS = 3, 3
_SPAN = (0.002, 2.0)  # of the embedding's standard deviation, where the boundary is looked for


def panel(
    budget: Budget, changes: dict[str, Any], shape: tuple[int, int], fault: Fault = "none"
) -> Task:
    """Return the task of one cell: the appendix's model at V 1000, of a width and a depth."""
    d_model, n_layers = shape
    model = minigpt(vocab_size=1000, max_seq_len=64, d_model=d_model, n_layers=n_layers, n_heads=2)
    changed = override(model, changes)
    draws, rows = _AMOUNTS[budget]
    return InitialPanel(model=changed, draws=draws, sequences=rows, seq_len=64, fault=fault)


def cells(budget: Budget) -> dict[Place, Task]:
    """Return the grid."""
    return {
        (init, tied, scale, *shape): panel(
            budget, {"init": init, "tie_embeddings": tied, "logit_scale": scale}, shape
        )
        for init, tied, scale in product(_INITS, (True, False), ("none", "inv_sqrt_d"))
        for shape in _SHAPES[budget]
    }


def faulty(budget: Budget) -> dict[Fault, Task]:
    """Return the panels of models that are wrong, at GPT-2's initialisation."""
    return {fault: panel(budget, {"init": "gpt2"}, (64, 2), fault) for fault in _FAULTS}


def as_written(budget: Budget) -> dict[str, Task]:
    """Return the appendix at GPT-2 small's size, as written and cured."""
    if budget == "quick":
        return {}
    model = override(gpt2("124M"), {"init": "torch", "dropout": 0.0})
    kinds: dict[str, dict[str, Any]] = {
        "written": {},
        "scaled": {"logit_scale": "inv_sqrt_d"},
        "untied": {"tie_embeddings": False},
        "gpt2": {"init": "gpt2"},
    }
    return {name: _large(override(model, changes)) for name, changes in kinds.items()}


def _large(model: ModelConfig) -> Task:
    return InitialPanel(model=model, draws=3, sequences=8, seq_len=64)


def search(budget: Budget, evidence: Evidence) -> tuple[dict[float, Task], tuple[float, float]]:
    """Cut the span of standard deviations into four, again and again where 0.02 nats is crossed."""
    low, high = _SPAN
    asked: dict[float, Task] = {}
    for _ in range(_ROUNDS):
        inner = np.geomspace(low, high, _CUTS + 2)[1:-1]
        stds = [float(f"{std:.4g}") for std in inner]
        inits = {std: {"init": {"kind": "gaussian", "std": std}} for std in stds}
        asked |= {std: panel(budget, init, (64, 2)) for std, init in inits.items()}
        if any(asked[std] not in evidence for std in stds):
            break
        below = [std for std in stds if excess_of(evidence, asked[std]).mean() < DELTA]
        low, high = max([low, *below]), min([high, *(std for std in stds if std not in below)])
    return asked, (low, high)


def excess_of(evidence: Evidence, task: Task) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return loss - ln V for each draw."""
    return np.array(evidence[task].values["excess_nats"], dtype=float)


def mean_of(evidence: Evidence, name: str, task: Task, of: str = "excess_nats") -> Number:
    """Return the mean over the draws."""
    return Number.mean(name, evidence[task].values[of], of=[task], unit="nats")
