"""`assay paper`: the whole article computed anew, every claim with its verdict."""

from pathlib import Path

import typer

from assay.cli.claims import tell
from assay.cli.gathering import (
    BudgetName,
    Lab,
    Out,
    Together,
    Workers,
    budget_of,
    check_installed,
    gather,
)


def paper(
    budget: BudgetName = "quick",
    workers: Workers = None,
    together: Together = None,
    out: Out = None,
    lab: Lab = Path("lab"),
) -> None:
    """Run every claim and write the article anew, in English and Vietnamese.

    Interrupted at any point, the same command goes on. Verdicts come on stderr,
    the folder of the report on stdout: pages that need no network, Markdown,
    figures, tables, every number with what it stands on.

    \b
    assay paper
    assay paper --budget laptop --out paper
    """  # noqa: D301
    check_installed("paper")
    size = budget_of(budget)
    from assay.experiments.claims import CLAIMS
    from assay.experiments.paper.folder import write_report

    evidence = gather(CLAIMS, size, lab, workers, together)
    folder = out or lab / f"paper.{size}"
    for judged in write_report(folder, CLAIMS, size, evidence):
        tell(judged)
    typer.echo(str(folder))
