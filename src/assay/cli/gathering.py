"""Gathering evidence: the options that commands share, and where the work stands."""

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.progress import words
from assay.cli.sanitize import escaped
from assay.cli.signals import Interrupts
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.experiments.claim import Budget, Claim
    from assay.experiments.evidence import Evidence
    from assay.experiments.jobs import Job
    from assay.experiments.laboratory import Laboratory

_LINE_S = 30.0  # between two lines where there is no terminal
_FEW = 30  # jobs of a stage that are told one by one
BudgetName = Annotated[
    str, typer.Option("--budget", "-b", help="quick, laptop or full: how much is run.")
]
Lab = Annotated[
    Path,
    typer.Option(
        envvar="ASSAY_LAB", file_okay=False, help="The folder of runs and records already made."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", file_okay=False, help="The report's folder; else in the lab."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; else one a core, or one for a GPU.")
]
Together = Annotated[
    int | None,
    typer.Option(min=1, help="Runs a process trains at once; else 1, on a GPU what is fastest."),
]


def check_installed(command: str) -> None:
    """Refuse where the laboratory's libraries are missing.

    Raises:
        ConfigError: With the command that installs them.
    """
    for library in ("scipy", "vl_convert"):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(
                f"{command}: {library} is not installed; expected what the laboratory needs. "
                "Install it: pip install 'assay[lab]'"
            )


def budget_of(name: str) -> "Budget":
    """Return a budget by its name.

    Raises:
        ConfigError: If there is none of it.
    """
    from assay.experiments.claim import BUDGETS

    for budget in BUDGETS:
        if budget == name:
            return budget
    raise ConfigError(f"--budget: {name!r} found; expected one of: {', '.join(BUDGETS)}.")


def processes(workers: int | None) -> int:
    """Return how many workers there are to be: as told, else one a core, or one for a GPU."""
    import torch

    return workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1)


def laboratory(
    folder: Path, workers: int | None, together: int | None, told: "Stages", interrupts: Interrupts
) -> "Laboratory":
    """Return a laboratory that shows where the work stands, and stops when interrupted."""
    from assay.experiments.laboratory import Laboratory

    return Laboratory(
        folder,
        workers=processes(workers),
        together=together,
        told=told,
        stop=interrupts.noted,
    )


def gather(
    claims: "Sequence[Claim]",
    budget: "Budget",
    lab: Path,
    workers: int | None,
    together: int | None,
) -> "Evidence":
    """Do what the claims ask for; an interrupt saves what is under way and ends the process.

    Raises:
        RunError: If a task failed.
    """
    with Interrupts() as interrupts, Stages() as told:
        found = laboratory(lab, workers, together, told, interrupts).gather(claims, budget)
    if interrupts.noted():
        words.print("Saved. The same command goes on.")
        sys.exit(interrupts.status)
    return found


class Stages:
    """A bar for each stage of work; where there is no terminal, lines: one a job, if those are few.

    What failed or diverged is told wherever the words go.
    """

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, Left(), console=words, disable=not words.is_terminal)
        self._task = self._bar.add_task("")
        self._stage: tuple[str, ...] = ()
        self._began = self._spoke = time.monotonic()
        self._before = 0
        self._told: set[str] = set()

    def __enter__(self) -> "Stages":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, jobs: "list[Job]") -> None:
        """Show where the jobs of a stage stand."""
        from assay.experiments.jobs import ENDED

        ended = [job for job in jobs if job.state in ENDED]
        running = ", ".join(job.label for job in jobs if job.state == "running")
        stage = tuple(job.key for job in jobs)
        if stage != self._stage:
            self._stage, self._began, self._before = stage, time.monotonic(), len(ended)
            self._told = {job.key for job in ended}
            self._bar.reset(self._task, total=len(jobs))
        self._bar.update(self._task, completed=len(ended), description=escaped(running[:60]))
        for job in ended:
            if job.key not in self._told:
                self._tell(job, one_by_one=len(jobs) <= _FEW)
        if not words.is_terminal and time.monotonic() - self._spoke > _LINE_S:
            self._spoke = time.monotonic()
            words.print(f"{len(ended)} of {len(jobs)} done{self._left(len(jobs), len(ended))}")

    def _tell(self, job: "Job", *, one_by_one: bool) -> None:
        self._told.add(job.key)
        if job.error or (one_by_one and not words.is_terminal):
            said = f"{job.label}: {job.error or f'done after {job.elapsed_s:.0f} s'}"
            words.print(escaped(said, keep="\n"))

    def _left(self, total: int, ended: int) -> str:
        done = ended - self._before
        if done == 0:
            return ""
        seconds = (time.monotonic() - self._began) / done * (total - ended)
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
