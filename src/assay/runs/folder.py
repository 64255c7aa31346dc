"""The folder of a run.

RUN/
    config.json       the resolved config
    manifest.json     hashes, versions, machine, times, result
    metrics.jsonl     losses and rates: the same bits whenever the run is repeated
    timings.jsonl     seconds and tokens per second: never the same twice
    tokenizer/        what turns text into tokens and back
    checkpoints/      step-NNNNNN/
    samples/          text the model wrote
    curve.png         the losses over the steps
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from assay.config import RunConfig
from assay.disk import flush
from assay.errors import ConfigError, RunError
from assay.schema import decode

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NEEDED: dict[str, type] = {
    "status": str,
    "started": str,
    "data": dict,
    "packages": dict,
    "machine": dict,
    "stretches": list,
    "notes": list,
}
_NEEDED_INSIDE = {
    "data": {"data_sha256", "tokenizer_sha256", "train"},
    "packages": {"torch"},
    "machine": {"device", "precision", "threads"},
}


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a run folder, a path included.

    Raises:
        ConfigError: With what is allowed.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"run name: {name!r} found; expected up to 64 of a-z, 0-9, '.', '_', '-', "
            "beginning with a letter or digit."
        )


class RunFolder:
    """Paths and files of one run; knows nothing of models."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Make a new, empty run folder.

        Raises:
            RunError: If it is there already, or cannot be made.
            ConfigError: If its name is not a run name.
        """
        check_name(path.name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            begun = (path / "config.json").is_file()
            go_on = f", or go on with it: assay resume {path.name}" if begun else ""
            raise RunError(
                f"{path}: a run of this name is there already and is never overwritten. Choose "
                f"another --name{go_on}"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: the run folder cannot be made: {error.strerror}.") from None
        return cls(path)

    @classmethod
    def find(cls, run: str | Path, root: Path) -> "RunFolder":
        """Open an existing run by its path, or by its name under `root`.

        Raises:
            RunError: If there is none, with the names that are there.
        """
        for path in (root / run, Path(run)):
            if (path / "config.json").is_file():
                return cls(path)
        names = [folder.path.name for folder in cls.all_under(root)]
        there = f"runs there: {', '.join(names[-8:])}" if names else "there are no runs there yet"
        raise RunError(f"{run}: no run of this name or path found under {root}/; {there}.")

    @classmethod
    def all_under(cls, root: Path) -> list["RunFolder"]:
        """Return every run under `root`, oldest first."""
        if not root.is_dir():
            return []
        found = [path for path in root.iterdir() if (path / "config.json").is_file()]
        return [
            cls(path) for path in sorted(found, key=lambda p: (p / "config.json").stat().st_mtime)
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the lock dies with the process.

        Raises:
            RunError: If another process holds it.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: another process is training in this folder.") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """Where the tokenizer is."""
        return self.path / "tokenizer"

    def read_config(self) -> RunConfig:
        """Return the config of the run.

        Raises:
            RunError: If the file is missing or was damaged.
        """
        try:
            config = decode(RunConfig, self._read_json("config.json"))
            _ = config.model.vocab  # a run has settled it
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from None
        return config

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest of the run.

        Raises:
            RunError: If the file is missing or was damaged.
        """
        manifest = self._read_json("manifest.json")
        odd = [name for name, kind in _NEEDED.items() if not isinstance(manifest.get(name), kind)]
        odd = odd or [
            name for name, inner in _NEEDED_INSIDE.items() if inner - manifest[name].keys()
        ]
        if odd:
            raise RunError(
                f"{self.path / 'manifest.json'}: {odd[0]!r} is missing or incomplete; the file was "
                "damaged. Put it back from a copy."
            )
        return manifest

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        path = self.path / name
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        flush(temporary)
        temporary.replace(path)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: unreadable ({error}).") from None
        if not isinstance(content, dict):
            raise RunError(f"{path}: expected a JSON object.")
        return content
