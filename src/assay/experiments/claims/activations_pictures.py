"""Numbers, tables and figure of the claim on activations."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.train import Train

LOSS = "val_loss_nats"
Arms = Mapping[str, Sequence[Train]]
"""The trainings of each activation of a family; the first is what the others are held to."""


def difference(family: str, arms: Arms, found: Comparison) -> Number:
    """Return by how much the loss of an activation is above that of the first."""
    first = next(iter(arms))
    return Number.difference(f"{family}_{found.arm}", found, of=[*arms[first], *arms[found.arm]])


def bigger(parameters: Mapping[str, int], kind: str) -> float:
    """Return how many more parameters the blocks have than with the first, as a share."""
    return parameters[kind] / next(iter(parameters.values())) - 1


def family_table(
    evidence: Evidence,
    family: str,
    arms: Arms,
    parameters: Mapping[str, int],
    compared: Mapping[str, Comparison],
) -> Table:
    """Return size and loss of every activation of a family."""
    rows = tuple(
        (
            kind,
            f"{parameters[kind]:,}",
            Number(f"{family}_bigger_{kind}", bigger(parameters, kind)),
            Number.mean(f"{family}_loss_{kind}", evidence.values(runs, LOSS), of=runs),
            difference(family, arms, compared[kind]) if kind in compared else "",
            compared[kind].word if kind in compared else "",
        )
        for kind, runs in arms.items()
    )
    columns = ("mlp", "parameters", "bigger", "loss", "difference", "word")
    return Table(family, columns, rows, {"bigger": "+.2%", "loss": ".3f", "difference": "+.3f"})


def losses_figure(evidence: Evidence, families: Mapping[str, Arms]) -> Figure:
    """Draw the loss of every training once: arms that families share are drawn with the first."""
    drawn: set[tuple[Train, ...]] = set()
    rows = []
    for family, arms in families.items():
        for kind, runs in arms.items():
            if tuple(runs) in drawn:
                continue
            drawn.add(tuple(runs))
            number = Number.mean("", evidence.values(runs, LOSS), of=())
            ends = {"low": number.low, "high": number.high}
            rows.append({"mlp": kind, "family": family, "nats": number.value, **ends})
    return Figure("losses", "dots", tuple(rows), "nats", "mlp", "family", low="low", high="high")
