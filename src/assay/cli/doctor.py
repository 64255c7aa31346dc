"""`assay doctor`: the machine, and what to mend."""

import json
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.arguments import RunsFolder
from assay.cli.progress import words


def doctor(
    runs: RunsFolder = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="The findings alone, on stdout.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Compile the C++ kernels if need be, and check them again."),
    ] = False,
) -> None:
    """Look at processor, threads, precision, compiler, memory and disk; say what to mend.

    Takes a few seconds. Exit status 1 if something should be mended.

    \b
    assay doctor
    assay doctor --kernels
    assay doctor --json
    """  # noqa: D301
    from dataclasses import asdict

    from assay.engine.doctor import examine, examine_kernels

    findings = []
    for finding in examine_kernels() if kernels else examine(runs):
        findings.append(finding)
        if not as_json:
            words.print(f"{'ok  ' if finding.fine else 'MEND'} {finding.name:12} {finding.found}")
            if finding.mend:
                words.print(f"     {'':12} -> {finding.mend}")
    wrong = [finding.name for finding in findings if not finding.fine]
    rows = {finding.name: asdict(finding) for finding in findings}
    typer.echo(json.dumps({"mend": wrong, "findings": rows}))
    raise typer.Exit(1 if wrong else 0)
