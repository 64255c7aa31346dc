"""`assay verify`: run the numbers of a report again."""

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.gathering import Stages, Together, Workers, check_installed, laboratory
from assay.cli.progress import words
from assay.cli.sanitize import escaped
from assay.cli.signals import Interrupts

if TYPE_CHECKING:
    from assay.experiments.paper.rerun import Verified


def verify(
    report: Annotated[
        str,
        typer.Argument(
            metavar="REPORT[#ID]",
            help="A report's or study's folder; a number, claim or arm of it.",
        ),
    ],
    cheap: Annotated[
        bool, typer.Option("--cheap", help="Run only the quickest task of each number again.")
    ] = False,
    workers: Workers = None,
    together: Together = None,
    keep: Annotated[
        Path | None, typer.Option(help="A folder for the runs; else they are removed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a number.")] = False,
) -> None:
    """Run numbers of a report again, and say of each whether it came back.

    Every file of the report is held to its hash first. The answers, on stdout:
    reproduced bit for bit; within the interval; not reproduced, with both
    numbers and the likeliest cause; cannot be run here, with what it needs.
    Exit status 1 unless all came back.

    \b
    assay verify docs/paper#tying-parameters
    assay verify docs/paper#init-loss.slope --cheap
    assay verify lab/studies/norm --cheap
    """  # noqa: D301
    check_installed("verify")
    folder, _, name = report.partition("#")
    run_again = _read(Path(folder), name)  # where a signal ends it at once: nothing is to be saved
    scratch = tempfile.TemporaryDirectory(prefix="assay-verify-") if keep is None else None
    with Interrupts() as interrupts, Stages() as told, scratch or nullcontext(str(keep)) as place:
        found = run_again(laboratory(Path(place), workers, together, told, interrupts), cheap=cheap)
    for each in found:
        typer.echo(_json(each) if as_json else escaped(_line(each)))  # an arm is named by anyone
    came_back = sum(
        each.answer in ("reproduced bit for bit", "within the interval") for each in found
    )
    words.print(f"{came_back} of {len(found)} numbers came back")
    if interrupts.noted():
        sys.exit(interrupts.status)
    if came_back < len(found):
        sys.exit(1)


def _read(path: Path, name: str) -> Callable[..., "list[Verified]"]:
    """Read a report or a study, and return what runs the numbers asked for again."""
    from assay.experiments.paper.verify import read_numbers
    from assay.experiments.paper.verify import verify as verify_report
    from assay.experiments.paper.verify_study import read_arms, verify_study
    from assay.experiments.study import Study

    if (path / "study.json").is_file():
        study = Study.open(path.parent.parent, path.name)
        return partial(verify_study, read_arms(study, name))
    return partial(verify_report, read_numbers(path, name))


def _json(found: "Verified") -> str:
    was, now = (None if value != value else value for value in (found.was.value, found.found))
    told = {"id": found.id, "answer": found.answer, "was": was, "found": now}
    return json.dumps({**told, "ran": found.ran, "tasks": found.tasks, "why": found.why})


def _line(found: "Verified") -> str:
    ran = f" ({found.ran} of {found.tasks} tasks run)" if found.ran < found.tasks else ""
    why = f"; {found.why}" if found.why else ""
    if found.answer == "reproduced bit for bit":
        return f"{found.id}: {found.answer}, {found.was:.6g}{ran}"
    if found.answer == "cannot be run here":
        return f"{found.id}: {found.answer}{why}"
    return f"{found.id}: {found.answer}, {found.was:.6g} then, {found.found:.6g} now{ran}{why}"
