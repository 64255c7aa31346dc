"""Learned positions end at L: the loss up to 8 L by position, under five encodings."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.citation import Citation
from assay.experiments.claim import Budget, Claim, Judgement, Number, Part
from assay.experiments.claims.bases import EXTENTS
from assay.experiments.claims.changes import against, against_zero
from assay.experiments.claims.length_pictures import (
    Looks,
    by_length,
    by_position,
    change,
    lengths_table,
)
from assay.experiments.claims.position_arms import ENCODINGS, arms
from assay.experiments.claims.verdicts import all_of, of_facts, of_words
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.position import PositionLoss

_OTHERS = tuple(kind for kind in ENCODINGS if kind != "learned")
_TIMES = (1, 2, 4, 8)
_DELTA_NATS = 0.02
_TARGETS: Mapping[Budget, int] = {"quick": 2048, "laptop": 16_384, "full": 65_536}


def _lengths(budget: Budget) -> tuple[int, ...]:
    return tuple(EXTENTS[budget].seq_len * times for times in _TIMES)


def _looks(budget: Budget) -> Looks:
    lengths, targets = _lengths(budget), _TARGETS[budget]
    stride = lengths[0] // 2
    return {
        kind: [
            PositionLoss(run=task.run, lengths=lengths, stride=stride, targets=targets)
            for task in runs
        ]
        for kind, runs in arms(budget).items()
    }


def tasks(budget: Budget, evidence: Evidence) -> Sequence[Task]:
    """Look at the runs that position-order trains."""
    return [task for looks in _looks(budget).values() for task in looks]


def judge(budget: Budget, evidence: Evidence) -> Judgement:
    """Confirm if the table gives nothing past its end where every other encoding gives a loss."""
    looks, lengths = _looks(budget), _lengths(budget)
    sliding = {
        kind: np.array([evidence.values(looks[kind], f"sliding.{at}") for at in lengths])
        for kind in ENCODINGS
    }  # (lengths, seeds)
    ends = np.isfinite(sliding["learned"][0]).all() and np.isnan(sliding["learned"][1:]).all()
    goes_on = all(np.isfinite(sliding[kind]).all() for kind in _OTHERS)
    changes = {kind: list(sliding[kind][-1] - sliding[kind][0]) for kind in _OTHERS}
    changed = against_zero(changes, delta=_DELTA_NATS)
    order = ("alibi", *(kind for kind in _OTHERS if kind != "alibi"))
    far = against({kind: list(sliding[kind][-1]) for kind in order}, delta=_DELTA_NATS)
    undefined = Part("undefined", of_facts([bool(ends)]))
    others = Part("others", of_facts([bool(goes_on)]))
    kept = of_words([found.word for found in changed.values()], "not higher")
    best = [of_words([found.word], "higher") for found in far.values()]
    return Judgement(
        all_of([undefined.verdict, others.verdict]),
        (undefined, others, Part("kept", kept), Part("alibi", all_of(best))),
        numbers=(
            Number("trained", lengths[0]),
            Number("far", lengths[-1]),
            *(change(kind, changed[kind], looks) for kind in _OTHERS),
        ),
        tables=(lengths_table(evidence, looks, changed),),
        figures=(by_length(evidence, looks), by_position(evidence, looks)),
    )


CLAIM = Claim(
    id="position-extrapolation",
    section="5.1",
    tasks=tasks,
    judge=judge,
    sources=(
        Citation("Press et al. 2022", "arXiv:2108.12409", "sec. 4"),
        Citation("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 4"),
    ),
)
