"""`assay resume`: go on with a run."""

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.arguments import RunsFolder
from assay.cli.train import go

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]


RunNames = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Names or paths; several go on together.")
]


def resume(
    run: RunNames,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even where another machine or torch changes the bits.")
    ] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Go on with an interrupted run, to the same bits as if it had never stopped.

    \b
    assay resume shakespeare-1
    assay resume path/to/run --anyway
    assay resume shakespeare-2-s0 shakespeare-2-s1
    """  # noqa: D301
    from assay.runs.run import Run

    opened = [Run.open(name, root=runs) for name in run]
    if len(opened) == 1:
        go(opened[0], anyway=anyway)
        return
    from assay.cli.ensembles import go_ensemble

    go_ensemble(opened, size=len(opened), anyway=anyway)
