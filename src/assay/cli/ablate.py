"""`assay ablate`: one or more fields at several values, under several seeds, with intervals."""

import importlib.util
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.arguments import Preset, build_config, parse_value, tell_apart
from assay.cli.progress import preparing, words
from assay.cli.signals import Interrupts
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.experiments.jobs import Job
    from assay.experiments.study import Study

_CHANGE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+)=(.*)", re.DOTALL)
_ASSUMED_NOISE = 0.01  # nats: what small models showed over seeds; said where it is used
Fields = Annotated[
    list[str],
    typer.Argument(
        metavar="FIELD=A,B...",
        help="Fields at several values; beside them what `assay train` takes.",
        show_default=False,
    ),
]


def ablate(
    fields: Fields,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Of the study.")] = None,
    preset: Preset = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each arm.")] = 3,
    metric: Annotated[
        str, typer.Option(help="val_loss_nats or val_bits_per_byte.")
    ] = "val_loss_nats",
    delta: Annotated[
        float | None, typer.Option(help="Smallest difference that matters, for equivalence.")
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Assumed sd of a paired difference, before any is measured.")
    ] = _ASSUMED_NOISE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else one a core.")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what it would take and see; run nothing.")
    ] = False,
    lab: Annotated[
        Path, typer.Option(envvar="ASSAY_LAB", help="The folder of studies and their runs.")
    ] = Path("lab"),
) -> None:
    """Compare fields at several values, seed by seed, and say what the seeds can and cannot show.

    The first value of each field makes the arm that the others are held to. A study that was
    interrupted goes on when the same command is given again; runs that another study made are not
    made twice. The report's folder is printed on stdout.

    \b
    assay ablate model.norm=layer,rms,none --seeds 5
    assay ablate model.tie_embeddings=true,false my.txt train.steps=300 --delta 0.01
    assay ablate model.norm=rms,none train.optimizer.lr=1e-3,1e-2 --plan
    """  # noqa: D301
    several, rest = _apart(fields)
    config = build_config(tell_apart(rest), preset)
    _check_installed()

    from assay.experiments.design import Design, grid
    from assay.experiments.study import Study

    if not several:
        raise ConfigError(
            "fields: none with several values found; expected one such as model.norm=layer,rms."
        )
    first = config.train.seed
    design = Design(config, grid(several), range(first, first + seeds))
    name = name or _name(several)
    known = (lab / "studies" / name).exists()
    with preparing():
        study = Study.create(lab, name, design, metric=metric, delta=delta)
    n_workers = workers or os.cpu_count() or 1
    _tell_plan(study, n_workers, noise)
    if plan_only:
        if not known:  # a plan takes no name
            shutil.rmtree(study.folder)
        return
    _run(study, n_workers)
    _conclude(study)


def _check_installed() -> None:
    if importlib.util.find_spec("statsmodels") is None:
        raise ConfigError(
            "ablate: statsmodels is not installed; expected what the laboratory needs. Install it: "
            "pip install 'assay[lab]'"
        )


def _apart(arguments: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the fields with several values, and all other arguments."""
    several: dict[str, list[Any]] = {}
    rest = []
    for argument in arguments:
        match = _CHANGE.fullmatch(argument)
        values = _split(match[2]) if match else []
        if match and len(values) > 1:
            several[match[1]] = [parse_value(value) for value in values]
        else:
            rest.append(argument)
    return several, rest


def _split(text: str) -> list[str]:
    """Cut at the commas that stand in no bracket and no quotation."""
    parts, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _name(several: dict[str, list[Any]]) -> str:
    """Return a name that says what is compared."""
    text = "-".join(field.rpartition(".")[2] for field in several)
    return re.sub(r"[^a-z0-9._-]", "-", text.lower())[:64]


def _tell_plan(study: "Study", workers: int, noise: float) -> None:
    """Say how many runs, how long, and what they can see."""
    from assay.experiments.jobs import ENDED, Jobs
    from assay.experiments.planning import ALPHA, POWER, smallest_visible

    jobs = Jobs(study.lab)
    study.enlist(jobs)
    waiting = [job for job in jobs.all(study.cells()) if job.state not in ENDED]
    arms, seeds = study.design.arms, study.record.seeds
    n_runs = len(arms) * len(seeds)
    seconds = _seconds(study, len(waiting)) / min(workers, max(1, len(waiting)))
    words.print(
        f"{study.folder}: {len(arms)} arms x {len(seeds)} seeds = {n_runs} runs, "
        f"{n_runs - len(waiting)} of them made already; about {_minutes(seconds)} with "
        f"{workers} worker{'s' * (workers > 1)} of one thread"
    )
    alpha = ALPHA / (len(arms) - 1)
    visible = smallest_visible(noise, len(seeds), alpha=alpha)
    words.print(
        f"{len(seeds)} seeds can see a difference of {visible:.2g} with power {POWER:g}, if "
        f"the noise of a paired difference is {noise:g} (assumed; --noise), over {len(arms) - 1} "
        f"comparison{'s' * (len(arms) > 2)}"
    )


def _seconds(study: "Study", n_waiting: int) -> float:
    """Return about how long the runs that wait would take one after another."""
    import torch

    from assay.data.prepare import prepare
    from assay.experiments.estimate import run_seconds
    from assay.schema import override

    if n_waiting == 0:
        return 0.0
    threads, total = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    for arm in study.design.arms:
        config = study.design.config(arm, study.record.seeds[0])
        dataset = prepare(config.data)
        if config.model.vocab_size is None:
            config = override(config, {"model.vocab_size": dataset.tokenizer.vocab_size})
        total += run_seconds(config, val_tokens=len(dataset.val.ids))
    torch.set_num_threads(threads)
    return total / len(study.design.arms) * n_waiting


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _run(study: "Study", workers: int) -> None:
    from assay.experiments.jobs import ENDED, Jobs
    from assay.experiments.work import run_all

    before = {job.key for job in Jobs(study.lab).all(study.cells()) if job.state in ENDED}
    with Interrupts() as interrupts, _Progress(len(study.cells()), before) as told:
        run_all(study.lab, study.cells(), workers=workers, told=told, stop=interrupts.noted)
    if interrupts.noted():
        words.print("Saved. The same command goes on.")
        sys.exit(interrupts.status)


class _Progress:
    """A bar of runs that have ended; a line for each where there is no terminal."""

    def __init__(self, total: int, known: set[str]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, Left(), console=words, disable=not words.is_terminal)
        self._task = self._bar.add_task("runs", total=total)
        self._told = set(known)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, jobs: "list[Job]") -> None:
        """Show where the jobs stand."""
        from assay.experiments.jobs import ENDED

        ended = [job for job in jobs if job.state in ENDED]
        running = [job.label for job in jobs if job.state == "running"]
        self._bar.update(self._task, completed=len(ended), description=", ".join(running)[:60])
        for job in ended:
            if job.key not in self._told and (job.error or not words.is_terminal):
                words.print(f"{job.label}: {job.error or f'done after {job.elapsed_s:.0f} s'}")
            self._told.add(job.key)


def _conclude(study: "Study") -> None:
    from assay.experiments import report
    from assay.experiments.figure import differences_figure, svg
    from assay.experiments.page import html

    pages = {
        "report.html": html(study),
        "figure.svg": svg(differences_figure(study)),
        "report.md": report.markdown(study),
        "runs.csv": report.runs_csv(study),
        "comparisons.csv": report.comparisons_csv(study),
        "table.tex": report.latex(study),
    }
    for name, content in pages.items():
        (study.folder / name).write_text(content, encoding="utf-8")
    for found in study.comparisons():
        words.print(found.sentence)
    typer.echo(str(study.folder))
