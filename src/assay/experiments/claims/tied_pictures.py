"""What tying's evidence looks like: by frequency of the token, over widths, on little text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assay.experiments.claim import Budget, Figure, Number, Table
from assay.experiments.claims.changes import against_zero
from assay.experiments.claims.tied_arms import ENDS, SIZES, Arm, few_tokens, loss_parts
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence

_UNTIED: tuple[Arm, ...] = ("untied", "narrow")


@dataclass(frozen=True, slots=True)
class Frequency:
    """The loss by frequency of the token."""

    numbers: tuple[Number, ...]
    table: Table
    figure: Figure


def frequency(budget: Budget, evidence: Evidence) -> Frequency:
    """Return by how much untied arms exceed the tied one, bucket by bucket, Holm over them all."""
    last = (*ENDS, SIZES[budget].vocab)
    differences = {
        f"{arm} {end}": _more(budget, evidence, arm, end) for arm in _UNTIED for end in last
    }
    found = against_zero(differences)
    numbers = {
        (arm, end): Number.difference(
            f"rank_{arm}_{place}",
            found[f"{arm} {end}"],
            of=[*loss_parts(budget, "tied"), *loss_parts(budget, arm)],
        )
        for arm in _UNTIED
        for place, end in enumerate(last)
    }
    names = {end: f"{first + 1}-{end}" for first, end in zip((0, *ENDS), last, strict=True)}
    return Frequency(
        tuple(numbers.values()),
        _table(budget, evidence, names, numbers),
        Figure(
            "frequency",
            "dots",
            tuple(
                {"ranks": names[end], "arm": arm, **_ends(number)}
                for (arm, end), number in numbers.items()
            ),
            "nats",
            "ranks",
            "arm",
            "low",
            "high",
            rules=(("x", 0.0),),
        ),
    )


def _loss(budget: Budget, evidence: Evidence, arm: Arm, end: int) -> list[float]:
    return evidence.values(loss_parts(budget, arm), f"loss_nats.{end}")


def _more(budget: Budget, evidence: Evidence, arm: Arm, end: int) -> list[float]:
    pairs = zip(
        _loss(budget, evidence, arm, end), _loss(budget, evidence, "tied", end), strict=True
    )
    return [a - b for a, b in pairs]


def _table(
    budget: Budget,
    evidence: Evidence,
    names: Mapping[int, str],
    numbers: Mapping[tuple[Arm, int], Number],
) -> Table:
    looks = loss_parts(budget, "tied")
    rows = tuple(
        (
            name,
            f"{evidence[looks[0]].value(f'targets.{end}'):,.0f}",
            Number.mean(f"rank_tied_{end}", _loss(budget, evidence, "tied", end), of=looks),
            numbers["untied", end],
            numbers["narrow", end],
        )
        for end, name in names.items()
    )
    columns = ("ranks", "targets", "tied", *_UNTIED)
    return Table("frequency", columns, rows, {"tied": ".3f", "untied": "+.3f", "narrow": "+.3f"})


def trend_figure(budget: Budget, found: Mapping[str, Comparison]) -> Figure:
    """Draw untied less tied over the widths."""
    rows = tuple(
        {"width": width, "arm": arm, **_ends(Number.difference("", found[f"{arm} {width}"], of=()))}
        for arm in _UNTIED
        for width in SIZES[budget].widths
    )
    rules = (("y", 0.0),)
    return Figure(
        "trend", "lines", rows, "width", "nats", "arm", "low", "high", log="x", rules=rules
    )


def few_figure(budget: Budget, evidence: Evidence, arms: Sequence[Arm]) -> Figure:
    """Draw both losses on little text over the steps, mean over the seeds that finished."""
    rows = []
    for arm in arms:
        done = [evidence[task].values for task in few_tokens(budget, arm) if evidence[task].values]
        for side in ("train", "val") if done else ():
            means = np.mean([values[f"{side}_nats"] for values in done], axis=0)
            rows += [
                {"step": step, "nats": float(nats), "arm": arm, "side": side}
                for step, nats in zip(done[0]["step"], means, strict=True)
            ]
    return Figure("few", "lines", tuple(rows), "step", "nats", "arm", facet="side")


def _ends(number: Number) -> dict[str, float | None]:
    return {"nats": number.value, "low": number.low, "high": number.high}
