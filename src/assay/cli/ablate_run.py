"""Running the cells of a study, and writing its report."""

import sys
from typing import TYPE_CHECKING

import typer

from assay.cli.gathering import Stages
from assay.cli.progress import words
from assay.cli.sanitize import escaped
from assay.cli.signals import Interrupts

if TYPE_CHECKING:
    from assay.experiments.study import Study


def run(study: "Study", workers: int, together: int | None) -> int:
    """Run what has not ended; return how many runs failed. An interrupt ends the process."""
    from assay.experiments.jobs import Jobs
    from assay.experiments.work import run_all

    jobs = Jobs(study.lab)
    study.enlist(jobs)
    with Interrupts() as interrupts, Stages() as told:
        ended = run_all(
            study.lab,
            study.cells(),
            workers=workers,
            together=together,
            told=told,
            stop=interrupts.noted,
        )
    if interrupts.noted():
        words.print("Saved. The same command goes on.")
        sys.exit(interrupts.status)
    n_failed = sum(job.state == "failed" for job in ended)
    if n_failed:
        words.print(f"{n_failed} runs failed; the same command tries them again.")
    return n_failed


def keep_documents(study: "Study") -> None:
    """Judge every finished run document by document."""
    import torch

    from assay.experiments.documents import keep_document_losses

    torch.set_num_threads(1)  # as workers do
    for runs in study.outcomes().values():
        for run in runs:
            if run.state == "finished":
                keep_document_losses(study.lab, run.key)


def conclude(study: "Study") -> None:
    """Write the report, say what was found, and print the folder on stdout."""
    from assay.experiments import report
    from assay.experiments.figure import differences_figure, svg
    from assay.experiments.page import html
    from assay.experiments.results import Results
    from assay.experiments.written import write_whole

    results = Results.of(study)
    pages = {
        "report.html": html(results),
        "figure.svg": svg(differences_figure(results)),
        "report.md": report.markdown(results),
        "runs.csv": report.runs_csv(results),
        "comparisons.csv": report.comparisons_csv(results),
        "table.tex": report.latex(results),
    }
    for name, content in pages.items():
        write_whole(study.folder / name, content)
    for sentence in report.findings(results):
        words.print(escaped(sentence))
    typer.echo(str(study.folder))
