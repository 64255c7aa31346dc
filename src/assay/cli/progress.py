"""What is shown on stderr while a run goes."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from assay.measure.panel import Panel
    from assay.runs.session import RunReport

words = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Show(Protocol):
    """Something that shows a report."""

    def __call__(self, report: "RunReport", /) -> None:
        """Show it."""


Told = Callable[[str, int, int], None]


@contextmanager
def preparing() -> Iterator[Told]:
    """Yield what is told of the preparation of a text: a bar for each stage, on a terminal."""
    if not words.is_terminal:
        yield lambda stage, done, total: None
        return
    columns = (TextColumn("{task.description:16}"), BarColumn(bar_width=24), DownloadColumn())
    with Progress(*columns, console=words, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done)

        yield tell


@contextmanager
def training(steps: int, start: int) -> Iterator[Show]:
    """Yield what shows a report: a bar on a terminal, a line at each evaluation elsewhere."""
    if not words.is_terminal:
        yield _line
        return
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=words) as bar:
        task = bar.add_task("", total=steps, completed=start)

        def show(report: "RunReport") -> None:
            _line(report)
            speed = f"{report.tokens_per_s:,.0f} tok/s"
            if report.utilisation is not None:
                speed += f" · {report.utilisation:.0%} of matmul"
            text = f"loss {report.loss_nats:.3f} · lr {report.lr:.1e} · {speed}"
            bar.update(task, completed=report.step, description=text)

        yield show


def _line(report: "RunReport") -> None:
    if report.trouble is not None:
        words.print(f"note: {report.trouble}")
    for spike in report.spikes:
        deviations = (spike.value - spike.mean) / spike.std if spike.std else math.inf
        words.print(
            f"note: step {report.step}: {spike.quantity} {spike.value:.4g}, {deviations:.0f} "
            f"standard deviations above the {spike.mean:.4g} of the steps before"
        )
    if report.panel is not None:
        _show_panel(report.panel)
    elif report.val is not None:
        words.print(
            f"step {report.step}: loss {report.loss_nats:.4f}, validation "
            f"{report.val.loss_nats:.4f} nats, {report.val.bits_per_byte:.4f} bits per byte, "
            f"{report.tokens_per_s:,.0f} tokens/s"
        )


def _show_panel(panel: "Panel") -> None:
    words.print(
        f"before step 1: loss {panel.loss_nats:.3f} (ln V = {panel.uniform_nats:.3f}; the logits' "
        f"variance {panel.logit_variance:.3f} predicts {panel.law_nats:.3f}), entropy "
        f"{panel.entropy_nats:.3f} nats, p(current token) {panel.p_current:.2g} "
        f"(uniform {math.exp(-panel.uniform_nats):.2g})"
    )
    for sentence in panel.words:
        words.print(f"[bold yellow]look:[/] {sentence}", markup=True)
