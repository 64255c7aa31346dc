"""Learned positions end at L: the loss up to 8 L by position, under five encodings."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.experiments.claim import Budget, Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.claims.bases import EXTENTS
from assay.experiments.claims.changes import (
    against,
    against_zero,
    is_higher,
    is_not_higher,
)
from assay.experiments.claims.position_order import ENCODINGS, arms
from assay.experiments.claims.verdicts import all_of, whole
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks import Task
from assay.experiments.tasks.position import PositionLoss
from assay.source import Source

_OTHERS = tuple(kind for kind in ENCODINGS if kind != "learned")
_TIMES = (1, 2, 4, 8)
_DELTA_NATS = 0.02
_TARGETS: Mapping[Budget, int] = {"quick": 2048, "laptop": 16_384, "full": 65_536}
Looks = Mapping[str, Sequence[PositionLoss]]


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
    undefined = Part("undefined", "confirmed" if ends else "refuted")
    others = Part("others", "confirmed" if goes_on else "refuted")
    kept = [is_not_higher(found) for found in changed.values()]
    best = [is_higher(found) for found in far.values()]
    return Judgement(
        all_of([undefined.verdict, others.verdict]),
        (undefined, others, Part("kept", whole(kept)), Part("alibi", all_of(best))),
        numbers=(
            Number("trained", lengths[0]),
            Number("far", lengths[-1]),
            *(_change(kind, changed[kind], looks) for kind in _OTHERS),
        ),
        tables=(_table(evidence, looks, lengths, changed),),
        figures=(_by_length(evidence, looks, lengths), _by_position(evidence, looks, lengths)),
    )


def _change(kind: str, found: Comparison, looks: Looks) -> Number:
    return Number.difference(f"change_{kind}", found, of=looks[kind])


def _at(evidence: Evidence, looks: Looks, kind: str, metric: str, length: int) -> Number:
    values = evidence.values(looks[kind], f"{metric}.{length}")
    return Number.mean(f"{metric}_{kind}_{length}", values, of=looks[kind])


def _table(
    evidence: Evidence, looks: Looks, lengths: Sequence[int], changed: Mapping[str, Comparison]
) -> Table:
    rows = tuple(
        (
            kind,
            *(_at(evidence, looks, kind, "sliding", length) for length in lengths),
            _at(evidence, looks, kind, "blocks", lengths[-1]),
            _change(kind, changed[kind], looks) if kind in changed else "-",
        )
        for kind in ENCODINGS
    )
    columns = ("encoding", *(f"times_{times}" for times in _TIMES), "blocks", "change")
    return Table("lengths", columns, rows, dict.fromkeys(columns, ".3f") | {"change": "+.3f"})


def _by_length(evidence: Evidence, looks: Looks, lengths: Sequence[int]) -> Figure:
    found = [
        (kind, length, _at(evidence, looks, kind, "sliding", length))
        for kind in ENCODINGS
        for length in lengths
    ]
    rows = tuple(
        {
            "length": length,
            "nats": number.value,
            "low": number.low,
            "high": number.high,
            "encoding": kind,
        }
        for kind, length, number in found
        if np.isfinite(number.value)
    )
    return Figure(
        "by_length", "lines", rows, "length", "nats", "encoding", "low", "high", log="x",
        rules=(("x", lengths[0]),),
    )  # fmt: skip


def _by_position(evidence: Evidence, looks: Looks, lengths: Sequence[int]) -> Figure:
    """Draw the loss along windows of 8 L, of L for the table; each point stands for L/2 tokens."""
    bucket = lengths[0] // 2
    rows = tuple(
        {"position": (place + 0.5) * bucket, "nats": nats, "encoding": kind}
        for kind in ENCODINGS
        for place, nats in enumerate(
            _curve(evidence, looks[kind], lengths[0] if kind == "learned" else lengths[-1])
        )
    )
    return Figure(
        "by_position", "lines", rows, "position", "nats", "encoding", rules=(("x", lengths[0]),)
    )


def _curve(evidence: Evidence, looks: Sequence[PositionLoss], length: int) -> list[float]:
    curves = [evidence[look].values.get("curve", {}).get(str(length)) for look in looks]
    found = [curve for curve in curves if curve]
    return list(map(float, np.mean(found, axis=0))) if found else []


CLAIM = Claim(
    id="position-extrapolation",
    section="5.1",
    tasks=tasks,
    judge=judge,
    sources=(
        Source("Press et al. 2022", "arXiv:2108.12409", "sec. 4"),
        Source("Kazemnejad et al. 2023", "arXiv:2305.19466", "sec. 4"),
    ),
)
