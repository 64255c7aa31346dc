"""`assay resume`: go on with a run."""

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.arguments import RunsFolder
from assay.cli.train import go

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]


def resume(
    run: RunName,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even where another machine or torch changes the bits.")
    ] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Go on with an interrupted run, to the same bits as if it had never stopped.

    \b
    assay resume shakespeare-1
    assay resume path/to/run --anyway
    """  # noqa: D301
    from assay.runs.run import Run

    go(Run.open(run, root=runs), anyway=anyway)
