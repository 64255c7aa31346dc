"""Numbers, table and figures of the claim on lengths beyond those trained on."""

from collections.abc import Mapping, Sequence

import numpy as np

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.position import PositionLoss

Looks = Mapping[str, Sequence[PositionLoss]]
"""The looks at the runs of each encoding; all are at the same lengths, from the trained one on."""


def change(kind: str, found: Comparison, looks: Looks) -> Number:
    """Return by how much the loss at the longest differs from that at the trained length."""
    return Number.difference(f"change_{kind}", found, of=looks[kind])


def lengths_table(evidence: Evidence, looks: Looks, changed: Mapping[str, Comparison]) -> Table:
    """Return the loss at every length."""
    lengths = _lengths(looks)
    rows = tuple(
        (
            kind,
            *(_at(evidence, looks, kind, "sliding", length) for length in lengths),
            _at(evidence, looks, kind, "blocks", lengths[-1]),
            change(kind, changed[kind], looks) if kind in changed else "-",
        )
        for kind in looks
    )
    times = (f"times_{length // lengths[0]}" for length in lengths)
    columns = ("encoding", *times, "blocks", "change")
    return Table("lengths", columns, rows, dict.fromkeys(columns, ".3f") | {"change": "+.3f"})


def by_length(evidence: Evidence, looks: Looks) -> Figure:
    """Draw the loss over the length."""
    lengths = _lengths(looks)
    found = [
        (kind, length, _at(evidence, looks, kind, "sliding", length))
        for kind in looks
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


def by_position(evidence: Evidence, looks: Looks) -> Figure:
    """Draw the loss along windows of 8 L, of L for the table; each point stands for L/2 tokens."""
    lengths = _lengths(looks)
    bucket = lengths[0] // 2
    rows = tuple(
        {"position": (place + 0.5) * bucket, "nats": nats, "encoding": kind}
        for kind, each in looks.items()
        for place, nats in enumerate(
            _curve(evidence, each, lengths[0] if kind == "learned" else lengths[-1])
        )
    )
    return Figure(
        "by_position", "lines", rows, "position", "nats", "encoding", rules=(("x", lengths[0]),)
    )


def _lengths(looks: Looks) -> Sequence[int]:
    first, *_ = looks.values()
    return first[0].lengths


def _at(evidence: Evidence, looks: Looks, kind: str, metric: str, length: int) -> Number:
    values = evidence.values(looks[kind], f"{metric}.{length}")
    return Number.mean(f"{metric}_{kind}_{length}", values, of=looks[kind])


def _curve(evidence: Evidence, looks: Sequence[PositionLoss], length: int) -> list[float]:
    curves = [evidence[look].values.get("curve", {}).get(str(length)) for look in looks]
    found = [curve for curve in curves if curve]
    return list(map(float, np.mean(found, axis=0))) if found else []
