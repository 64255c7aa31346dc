"""Tables and figures of the claim on complexity."""

from collections.abc import Mapping

from assay.count import count
from assay.experiments.claim import Budget, Figure, Number, Table
from assay.experiments.claims.clock import bands, exponent
from assay.experiments.claims.cost_counts import counted
from assay.experiments.claims.cost_grid import EXTENTS, Tasks, model_of
from assay.experiments.evidence import Evidence
from assay.experiments.tasks.cost import Axis, Pass
from assay.schema import override

_LETTERS = {"seq_len": "T", "n_layers": "L", "d_model": "d"}


def slopes_table(
    asked: Tasks, exponents: Mapping[tuple[Pass, Axis], Number], evidence: Evidence
) -> Table:
    """Return counted and measured exponents of every pass along every axis."""
    rows: list[tuple[str | Number, ...]] = []
    for (what, axis), found in exponents.items():
        task = asked.seconds[axis]
        tail = exponent(f"tail_{what}_{axis}", evidence, task, what, last=2)
        expected = Number(f"counted_{what}_{axis}", counted(asked, what, axis))
        sizes = f"{task.grid.sizes[0]} … {task.grid.sizes[-1]}"
        rows.append((what, _LETTERS[axis], sizes, expected, found, tail))
    columns = ("what", "axis", "sizes", "counted", "measured", "tail")
    spec = {"counted": ".2f", "measured": ".2f", "tail": ".2f"}
    return Table("slopes", columns, tuple(rows), spec)


def bytes_table(evidence: Evidence, asked: Tasks) -> Table:
    """Return what attention keeps for a backward pass, by how it is computed."""
    task = asked.attention
    names = ("fused", "by-hand", "as-called", "without-weights")
    found = evidence[task].values
    rows: list[tuple[str | Number, ...]] = []
    for place, n_tokens in enumerate(task.seq_lens):
        kept = {name: found[name]["saved"][place] / 2**20 for name in names}
        numbers = [
            Number(f"{name}_{n_tokens}", mib, unit="MiB", of=(task,)) for name, mib in kept.items()
        ]
        rows.append((f"{n_tokens}", *numbers))
    columns = ("tokens", "fused", "by_hand", "as_called", "without_weights")
    return Table("bytes", columns, tuple(rows), dict.fromkeys(columns[1:], ".2f"))


def share_figure(budget: Budget) -> Figure:
    """Draw the share of the T² term in the blocks, which crosses one half at T = 6 d."""
    extent = EXTENTS[budget]
    model = override(model_of(extent), {"position": "none"})
    lengths = [2**n for n in range(4, 15)]
    rows = tuple(
        {"tokens": n, "share": count(override(model, {"d_model": width}), seq_len=n).score_share,
         "d": f"d = {width}"}
        for width in (extent.sizes["d_model"][0], extent.d_model, extent.sizes["d_model"][-1], 1600)
        for n in lengths
    )  # fmt: skip
    rules = (("y", 0.5),)
    return Figure("share", "lines", rows, "tokens", "share", "d", log="x", rules=rules)


def seconds_figure(evidence: Evidence, asked: Tasks) -> Figure:
    """Draw the time of each pass over T."""
    task = asked.seconds["seq_len"]
    rows = bands(task.grid.sizes, {what: evidence[task].values[what] for what in task.passes})
    return Figure("seconds", "lines", rows, "size", "ms", "what", low="low", high="high", log="x y")


def memory_figure(evidence: Evidence, asked: Tasks) -> Figure:
    """Draw what attention keeps over T."""
    task = asked.attention
    rows = tuple(
        {"tokens": n_tokens, "mib": found["saved"][place] / 2**20, "what": name}
        for name, found in evidence[task].values.items()
        if name != "blocks"
        for place, n_tokens in enumerate(task.seq_lens)
    )
    return Figure("memory", "lines", rows, "tokens", "mib", "what", log="x y")
