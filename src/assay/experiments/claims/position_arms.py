"""Trainings under five encodings of position, which two claims look at, and their shuffles."""

from assay.experiments.claim import Budget
from assay.experiments.claims.bases import trained
from assay.experiments.tasks.position import Order
from assay.experiments.tasks.train import Train

ENCODINGS = ("none", "learned", "sinusoidal", "rope", "alibi")


def arms(budget: Budget) -> dict[str, list[Train]]:
    """Return the training of every encoding under each seed."""
    return {kind: trained(budget, {"model.position": kind}) for kind in ENCODINGS}


def orders(budget: Budget) -> dict[str, list[Order]]:
    """Return the shuffle test of each."""
    n = 64 if budget == "quick" else 512
    return {
        kind: [Order(run=task.run, windows=n, permutations=2) for task in runs]
        for kind, runs in arms(budget).items()
    }
