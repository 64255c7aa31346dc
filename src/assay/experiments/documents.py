"""Losses by validation document of finished runs, kept beside them, and what they add.

lab/records/KEY.documents.json  made once from the run's last checkpoint; the run stays as it is
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from assay.disk import read_json
from assay.engine.autotune import plan_from_manifest
from assay.engine.device import resolve_plan
from assay.errors import RunError
from assay.evaluate.by_document import DocumentKind, losses_by_document
from assay.experiments.code import code_sha256
from assay.experiments.outcome import Outcome
from assay.experiments.statistics import Interval, multi_bootstrap_interval
from assay.experiments.written import write_whole
from assay.runs.run import Run
from assay.schema import Config, decode

_MOST_BYTES = 1 << 22
_APART = 1e-4  # relative: other batches and other threads round otherwise; a changed weight shows
Many = Annotated[tuple[float, ...], Field(strict=False)]


class DocumentLosses(Config):
    """What is kept of a run; the lists are as in `assay.evaluate.by_document.Losses`."""

    by: DocumentKind
    """What stands for a document."""
    nats: Many
    """Summed over each."""
    tokens: Many
    """Of each."""
    text_bytes: Many
    """Of each."""
    val_loss_nats: float
    """As the run's own evaluation found it."""
    code_sha256: str
    """Of the sources that made this."""

    def check_whole(self) -> None:
        """Refuse lists that are not of the same documents.

        Raises:
            ValueError: If they are of other lengths, empty, or count less than nothing.
        """
        n = len(self.nats)
        if not n or len(self.tokens) != n or len(self.text_bytes) != n:
            raise ValueError("nats, tokens and text_bytes of other lengths found")
        if min(*self.tokens, *self.text_bytes) < 0:
            raise ValueError("a negative count found")

    def weights(self, metric: str) -> NDArray[np.float64]:
        """Return how much of the metric's denominator each holds."""
        return np.array(self.tokens if metric == "val_loss_nats" else self.text_bytes)

    def means(self, metric: str) -> NDArray[np.float64]:
        """Return the metric in each, 0 where there is nothing of it."""
        unit = 1.0 if metric == "val_loss_nats" else math.log(2)
        return np.array(self.nats) / unit / np.maximum(self.weights(metric), 1e-9)


def keep_document_losses(lab: Path, key: str) -> None:
    """Judge a finished run document by document, unless that is kept already.

    Raises:
        RunError: If its checkpoint does not give the loss the run recorded.
    """
    run = Run.open(lab / "cells" / key)
    manifest = run.folder.read_manifest()
    if _kept(lab, key, manifest["result"]["val_loss_nats"]) is not None:
        return
    plan = plan_from_manifest(resolve_plan(run.config.train), manifest["machine"])
    model, _ = run.load()
    found = losses_by_document(
        model,
        run.dataset(),
        seq_len=run.config.seq_len,
        max_tokens=run.config.eval.final_max_tokens,
        precision=plan.precision,
    )
    losses = DocumentLosses(
        by=found.by,
        nats=tuple(found.nats.tolist()),
        tokens=tuple(found.tokens.astype(float).tolist()),
        text_bytes=tuple(found.text_bytes.tolist()),
        val_loss_nats=manifest["result"]["val_loss_nats"],
        code_sha256=code_sha256("assay.evaluate.by_document"),
    )
    mean = sum(losses.nats) / sum(losses.tokens)
    if not math.isclose(mean, losses.val_loss_nats, rel_tol=_APART):
        raise RunError(
            f"{run.folder.path}: {mean:.6f} nats by its checkpoint, {losses.val_loss_nats:.6f} in "
            "its manifest; expected the same. One of them was edited or exchanged: remove the "
            "folder, and the cell is run again."
        )
    write_whole(_path(lab, key), losses.model_dump_json() + "\n")


def over_documents(
    lab: Path, pairs: Sequence[tuple[Outcome, Outcome]], metric: str, *, level: float
) -> tuple[Interval, str] | None:
    """Return the interval over seeds and documents, and what the documents are.

    Args:
        lab: The folder of cells and records.
        pairs: The first arm's run and the other's, of each seed.
        metric: What they are compared by.
        level: Confidence.

    None where fewer than two pairs finished, or losses by document are not kept of all of them.
    """
    finished = [(a, b) for a, b in pairs if math.isfinite(a.value(metric) + b.value(metric))]
    kept = [[_kept(lab, run.key, run.value("val_loss_nats")) for run in pair] for pair in finished]
    found = [(a, b) for a, b in kept if a is not None and b is not None]
    if len(found) < max(2, len(finished)) or len({len(a.nats) for pair in found for a in pair}) > 1:
        return None
    d = np.array([b.means(metric) - a.means(metric) for a, b in found])
    first = found[0][0]
    return multi_bootstrap_interval(d, first.weights(metric), level=level), first.by


def _path(lab: Path, key: str) -> Path:
    return lab / "records" / f"{key}.documents.json"


def _kept(lab: Path, key: str, val_loss_nats: float) -> DocumentLosses | None:
    """Return what is kept of a run, unless it was made by other code or of another result."""
    try:
        losses = decode(DocumentLosses, read_json(_path(lab, key), _MOST_BYTES))
        losses.check_whole()
    except (OSError, ValueError):
        return None
    same_code = losses.code_sha256 == code_sha256("assay.evaluate.by_document")
    same_run = losses.val_loss_nats == val_loss_nats
    same_sum = math.isclose(sum(losses.nats), val_loss_nats * sum(losses.tokens), rel_tol=_APART)
    return losses if same_code and same_run and same_sum else None
