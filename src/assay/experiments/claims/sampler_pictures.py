"""Numbers, table and figure of the claim on adaptive temperature."""

from collections.abc import Mapping, Sequence

from assay.experiments.claim import Figure, Number, Table, Verdict
from assay.experiments.claims.samplers import FIRST, SETTINGS, frontier
from assay.experiments.claims.writers import JUDGES
from assay.experiments.compare import Comparison
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.text import Written


def numbers_of(
    areas: Mapping[tuple[str, str], Sequence[float]],
    words: Mapping[str, Comparison],
    tasks_of: Mapping[str, Sequence[Written]],
) -> list[Number]:
    """Return the area of every sampler, and its gain on the first."""
    first = tasks_of[FIRST]
    found = [
        Number.mean(f"area_{name}_{who}", area, of=tasks_of[name])
        for (name, who), area in areas.items()
    ]
    return found + [
        Number.difference(
            f"gain_{name}_{who}", words[f"{name} {who}"], of=(*tasks_of[name], *first)
        )
        for name, who in areas
        if name != FIRST
    ]


def areas_table(numbers: Sequence[Number], verdicts: Mapping[str, Verdict]) -> Table:
    """Return area, gain and verdict of every sampler."""
    named = {number.id: number for number in numbers}
    columns = [f"{kind}_{who}" for who in JUDGES for kind in ("area", "gain")]
    rows = [
        (
            name,
            *(named.get(_cell(name, column), "-") for column in columns),
            verdicts.get(name, "-"),
        )
        for name in SETTINGS
    ]
    spec = dict.fromkeys(columns, ".3f")
    return Table("areas", ("sampler", *columns, "verdict"), tuple(rows), spec)


def _cell(name: str, column: str) -> str:
    kind, who = column.split("_", 1)
    return f"{kind}_{name}_{who}"


def frontier_figure(evidence: Evidence, tasks_of: Mapping[str, Sequence[Written]]) -> Figure:
    """Return the frontier of each sampler under the first judge: means over the seeds."""
    rows = []
    for name, found in tasks_of.items():
        records = [(evidence[task], len(task.samplings)) for task in found]
        points = [frontier(r, JUDGES[0], n) for r, n in records if r.state == "done"]
        for seeds in zip(*points, strict=True):
            diversity, quality = (sum(axis) / len(axis) for axis in zip(*seeds, strict=True))
            rows.append({"sampler": name, "diversity": diversity, "quality": quality})
    return Figure("frontier", "lines", tuple(rows), "diversity", "quality", "sampler")
