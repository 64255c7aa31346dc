"""TensorBoard, where it is asked for: an optional thin adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.runs.session import RunReport


def open_board(wanted: bool, folder: Path, *, after_step: int) -> Callable[[RunReport], None]:
    """Return a function that writes a report to FOLDER/tensorboard, or that does nothing.

    What was written of later steps than `after_step` is superseded and no longer shown.

    Raises:
        ConfigError: If it is wanted and not installed.
    """
    if not wanted:
        return lambda report: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "train.tensorboard: true found, and tensorboard is not installed. Install it: "
            "pip install 'assay[board]'"
        ) from None
    writer = SummaryWriter(folder / "tensorboard", purge_step=after_step + 1)

    def write(report: RunReport) -> None:
        scalars = {"train/loss_nats": report.loss_nats, "train/grad_norm": report.grad_norm}
        scalars |= {"train/lr": report.lr, "speed/tokens_per_s": report.tokens_per_s}
        if report.val is not None:
            scalars |= {"val/loss_nats": report.val.loss_nats}
            scalars |= {"val/bits_per_byte": report.val.bits_per_byte}
        for name, value in scalars.items():
            writer.add_scalar(name, value, report.step)
        writer.flush()

    return write
