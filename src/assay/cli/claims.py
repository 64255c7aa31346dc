"""`assay claims`: what the article says, sentence by sentence, run and judged."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.command import Command
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
from assay.cli.progress import words
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.experiments.claim import Claim
    from assay.experiments.paper.judged import Judged

claims = typer.Typer(
    no_args_is_help=True,
    help="""The claims of the article: list them, run them, see the verdicts.

    A run that was interrupted goes on when the same command is given again.
    """,
)


@claims.command("list", cls=Command)
def list_() -> None:
    """Print every claim on stdout: its name, the article's section, the sentence."""
    check_installed("claims")
    from assay.experiments.claims import CLAIMS
    from assay.experiments.words import words_of

    for claim in CLAIMS:
        typer.echo(f"{claim.id}\t{claim.section}\t{words_of(claim.id, 'en').claim}")


@claims.command(cls=Command)
def run(
    names: Annotated[list[str], typer.Argument(metavar="CLAIM...", show_default=False)],
    budget: BudgetName = "quick",
    workers: Workers = None,
    together: Together = None,
    out: Out = None,
    lab: Lab = Path("lab"),
) -> None:
    """Run claims and judge them; verdicts come on stderr, the report's folder on stdout.

    \b
    assay claims run tying-parameters
    assay claims run init-loss --budget laptop
    """  # noqa: D301
    check_installed("claims")
    chosen = [_named(name) for name in dict.fromkeys(names)]
    size = budget_of(budget)
    from assay.experiments.paper.folder import write_report

    evidence = gather(chosen, size, lab, workers, together)
    folder = out or lab / "claims" / f"{'-'.join(claim.id for claim in chosen)[:80]}.{size}"
    for judged in write_report(folder, chosen, size, evidence):
        tell(judged)
    typer.echo(str(folder))


def tell(judged: "Judged") -> None:
    """Say the verdicts of a claim."""
    from assay.experiments.words import words_of

    told = words_of(judged.claim.id, "en")
    words.print(f"{judged.claim.id}: {judged.judgement.verdict}", markup=False, highlight=False)
    for part in judged.judgement.parts:
        sentence = told.parts[part.id].format_map(judged.numbers)
        words.print(f"  {part.verdict}: {sentence}", markup=False, highlight=False)


def _named(name: str) -> "Claim":
    from assay.experiments.claims import CLAIMS

    known = {claim.id: claim for claim in CLAIMS}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name}: no such claim.{hint} `assay claims list` prints those there are.")
