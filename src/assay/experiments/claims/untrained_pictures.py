"""Numbers, table and figures of the claim on what untrained models write."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table, Verdict
from assay.experiments.claims.untrained_arms import ARMS, STRETCHES, VOCABULARY
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import ByPosition

INFORMATION = "information_excess_nats"
REPETITION = "repetition.found"


def values_of(
    evidence: Evidence, found: Sequence[ByPosition], place: int, name: str = INFORMATION
) -> list[float]:
    """Return a figure of one stretch under each seed."""
    return evidence.values(found, f"stretch_{place}.{name}")


def numbers_of(
    words: Mapping[str, Comparison], arms: Mapping[str, Sequence[ByPosition]], evidence: Evidence
) -> dict[str, Number]:
    """Return what may be quoted, by id."""
    found = [
        Number.difference(f"{when}_{arm}", words[f"{when} {arm}"], of=tasks)
        for arm, tasks in arms.items()
        for when in ("early", "late", "fall")
    ]
    found += [
        Number.mean(f"repetition_{arm}", values_of(evidence, tasks, 0, REPETITION), of=tasks)
        for arm, tasks in arms.items()
    ]
    found.append(Number("chance", 1 / VOCABULARY))
    return {number.id: number for number in found}


def arms_table(numbers: Mapping[str, Number], verdicts: Mapping[str, Verdict]) -> Table:
    """Return what every arm has early and late, and by how much it falls."""
    columns = ("early", "late", "fall", "repetition")
    rows: tuple[tuple[str | Number, ...], ...] = tuple(
        (arm, *(numbers[f"{column}_{arm}"] for column in columns), verdicts.get(arm, "-"))
        for arm in (*ARMS, "trained")
    )
    return Table("arms", ("arm", *columns, "verdict"), rows, dict.fromkeys(columns, ".3f"))


def stretches_figure(
    name: str, figure: str, arms: Mapping[str, Sequence[ByPosition]], evidence: Evidence
) -> Figure:
    """Draw a figure over the position in the text."""
    rows = []
    for arm, found in arms.items():
        for place in range(STRETCHES):
            number = Number.mean(name, values_of(evidence, found, place, figure), of=found)
            middle = (found[0].edges[place] + found[0].edges[place + 1] - 1) / 2
            ends = {"low": number.low, "high": number.high}
            rows.append({"arm": arm, "position": middle, "value": number.value, **ends})
    return Figure(name, "lines", tuple(rows), "position", "value", "arm", low="low", high="high")
