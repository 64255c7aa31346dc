"""Table and figures of the claim on the order of tokens."""

from collections.abc import Mapping

from assay.experiments.claim import Budget, Figure, Number, Table
from assay.experiments.claims.position_arms import ENCODINGS, arms, orders
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence

LOSS = "val_loss_nats"


def encodings_table(
    budget: Budget,
    evidence: Evidence,
    losses: Mapping[str, Comparison],
    shuffled: Mapping[str, Comparison],
) -> Table:
    """Return loss and worth of the order under every encoding."""
    runs, looks = arms(budget), orders(budget)
    rows = tuple(
        (
            kind,
            Number.mean(f"loss_{kind}", evidence.values(runs[kind], LOSS), of=runs[kind]),
            Number.difference(f"gain_{kind}", losses[kind], of=[*runs["none"], *runs[kind]])
            if kind in losses
            else "",
            losses[kind].word if kind in losses else "",
            Number.mean(f"all_{kind}", evidence.values(looks[kind], "all_nats"), of=looks[kind]),
            Number.difference(f"but_last_{kind}", shuffled[kind], of=looks[kind]),
        )
        for kind in ENCODINGS
    )
    columns = ("encoding", "loss", "gain", "word", "all", "but_last")
    return Table("encodings", columns, rows, dict.fromkeys(columns, ".3f") | {"gain": "+.3f"})


def dots(budget: Budget, evidence: Evidence) -> tuple[Figure, Figure]:
    """Draw the loss under every encoding, and what shuffling adds to it."""
    runs, looks = arms(budget), orders(budget)
    rows = [
        _dot(kind, name, Number.mean("", evidence.values(tasks, metric), of=()))
        for kind in ENCODINGS
        for name, tasks, metric in (
            ("loss", runs[kind], LOSS),
            ("all_but_last", looks[kind], "all_but_last_nats"),
            ("all", looks[kind], "all_nats"),
        )
    ]
    order = tuple(row for row in rows if row["what"] != "loss")
    loss = tuple(row for row in rows if row["what"] == "loss")
    return (
        Figure("loss", "dots", loss, "nats", "encoding", low="low", high="high"),
        Figure("order", "dots", order, "nats", "encoding", "what", low="low", high="high"),
    )


def _dot(kind: str, what: str, number: Number) -> dict[str, str | float | None]:
    return {
        "encoding": kind,
        "what": what,
        "nats": number.value,
        "low": number.low,
        "high": number.high,
    }
