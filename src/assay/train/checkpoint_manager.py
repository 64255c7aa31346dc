"""Which checkpoints of a run stay: the newest whole ones and the best."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from torch import Tensor

from assay.errors import CheckpointError
from assay.nn.model import GPT
from assay.train.checkpoint import checkpoints, step_of, verify_checkpoint, write_checkpoint

Glance = tuple[tuple[str, int, int], ...]


@final
class CheckpointManager:
    """Writes checkpoints and removes old ones, but never counts a damaged one as kept.

    A checkpoint is hashed once; afterwards it counts as whole while the sizes and times of its
    files are what they were.
    """

    def __init__(self, parent: Path, *, keep: int) -> None:
        self._parent = parent
        self._keep = keep
        self._whole: dict[Path, Glance] = {}

    def save(
        self,
        model: GPT,
        optim: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        best_step: int | None,
    ) -> Path:
        """Write a checkpoint, then remove all but the `keep` newest whole ones and the best.

        Raises:
            RunError: As `write_checkpoint` does; nothing was removed then.
        """
        path = write_checkpoint(self._parent, model, optim, state)
        self._whole[path] = _file_stats(path)
        self._prune(best_step)
        return path

    def _prune(self, best_step: int | None) -> None:
        kept = 0
        for folder in checkpoints(self._parent):
            if kept < self._keep:
                kept += self._is_whole(folder)
            elif step_of(folder) != best_step:
                shutil.rmtree(folder, ignore_errors=True)
                self._whole.pop(folder, None)

    def _is_whole(self, folder: Path) -> bool:
        if folder not in self._whole or self._whole[folder] != _file_stats(folder):
            try:
                verify_checkpoint(folder)
            except CheckpointError:
                return False  # left for the next resume, which says why it is set aside
            self._whole[folder] = _file_stats(folder)
        return True


def _file_stats(folder: Path) -> Glance:
    try:
        files = [(path.name, path.lstat()) for path in sorted(folder.iterdir())]
    except OSError:
        return ()
    return tuple((name, found.st_size, found.st_mtime_ns) for name, found in files)
