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
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from assay.config import RunConfig
from assay.disk import flush, leads_out, read_json
from assay.errors import ConfigError, RunError
from assay.nn.attention import Kernel
from assay.plugin import check_known
from assay.schema import decode, shown

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MOST_BYTES = {"config.json": 1 << 20, "manifest.json": 1 << 22}


class _Part(BaseModel):
    """Fields that a manifest needs; others may stand beside them."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Side(_Part):
    tokens: int
    sha256: str


class _Data(_Part):
    data_sha256: str
    tokenizer_sha256: str
    train: _Side
    val: _Side


class _Machine(_Part):
    device: str
    precision: Literal["fp32", "bf16"]
    attention: Kernel = "fused"
    compiled: bool = False
    threads: int
    replicas: int = 1


class _Packages(_Part):
    torch: str


class _Manifest(_Part):
    status: str
    started: str
    data: _Data
    packages: _Packages
    machine: _Machine
    stretches: list[dict[str, Any]]
    notes: list[str]
    result: dict[str, float] = {}


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
    @contextmanager
    def being_made(cls, path: Path) -> Iterator["RunFolder"]:
        """Yield a folder to be filled, which gets the name `path` once it is, and goes otherwise.

        What is killed meanwhile leaves a hidden folder beside and the name free; once the name is
        given, a power cut leaves the run there.

        Raises:
            RunError: If a run of this name is there already, or the folder cannot be made.
            ConfigError: If its name is not a run name.
        """
        check_name(path.name)
        _check_free(path)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
        new_parents = [parent for parent in path.parents if not parent.exists()]
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"{path}: the run folder cannot be made: {error.strerror}.") from None
        try:
            yield cls(scratch)
            for inner in (*scratch.rglob("*"), scratch):
                flush(inner)
            _check_free(path)
            scratch.rename(path)
            for parent in (path, *new_parents):
                flush(parent.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    @classmethod
    def find(cls, run: str | Path, root: Path) -> "RunFolder":
        """Open an existing run by its name, looked up under `root`, or by its path.

        Raises:
            RunError: If there is none, with the names that are there, or if something in its
                folder leads out of it or is neither file nor folder.
        """
        for path in _places(run, root):
            if (path / "config.json").is_file():
                _check_own(path)
                return cls(path)
        names = [folder.path.name for folder in cls.all_under(root)]
        there = f"runs there: {', '.join(names[-8:])}" if names else "there are no runs there yet"
        raise RunError(f"{run}: no run of this name or path found under {root}/; {there}.")

    @classmethod
    def inside(cls, root: Path, name: str) -> "RunFolder":
        """Return the folder of this name in `root`, which need not be there.

        Raises:
            ConfigError: If it is not a run name.
            RunError: As `find` does, or if the folder is a link.
        """
        check_name(name)
        path = root / name
        if path.is_symlink():
            raise RunError(f"{path}: a link found; expected a run's own folder.")
        _check_own(path)
        return cls(path)

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
            ConfigError: If it names kinds of a plug-in that is not loaded.
        """
        try:
            config = decode(RunConfig, self._read_json("config.json"))
            _ = config.model.vocab  # a run has settled it
        except ConfigError as error:
            check_known(self._read_json("manifest.json").get("plugins"), self.path)
            raise RunError(f"{self.path / 'config.json'}: {error}") from None
        return config

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest of the run.

        Raises:
            RunError: If the file is missing or was damaged.
        """
        manifest = self._read_json("manifest.json")
        try:
            _Manifest.model_validate(manifest)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, problem["loc"]))
            raise RunError(
                f"{self.path / 'manifest.json'}: {place}: {shown(problem['input'])} found; "
                f"{problem['msg'][:1].lower()}{problem['msg'][1:]}. The file was damaged: put it "
                "back from a copy."
            ) from None
        return manifest

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all; once it is there, a power cut leaves it there.

        Raises:
            RunError: If it is larger than what would be read back.
        """
        path = self.path / name
        text = json.dumps(content, indent=2) + "\n"
        if len(text) > _MOST_BYTES[name]:  # ASCII
            raise RunError(
                f"{path}: {len(text)} bytes to write; expected at most {_MOST_BYTES[name]}. Name "
                "a folder or a glob in data.text, not each of its files."
            )
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        for left in self.path.glob(f"{path.stem}.*.tmp"):  # by a killed process; the lock is ours
            left.unlink(missing_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            flush(temporary)
            temporary.replace(path)
            flush(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return read_json(path, _MOST_BYTES[name], finite=False)  # a perplexity may be infinite
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: unreadable ({error}).") from None


def _check_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        begun = (path / "config.json").is_file()
        go_on = f", or go on with it: assay resume {path.name}" if begun else ""
        raise RunError(
            f"{path}: a run of this name is there already and is never overwritten. Choose "
            f"another --name{go_on}"
        )


def _places(run: str | Path, root: Path) -> Iterator[Path]:
    """Yield the run's folder under `root` if there is one of this name, then `run` as a path.

    A name is looked up and never joined to `root` unseen, so that it cannot lead elsewhere.
    """
    name = str(run)
    if NAME.fullmatch(name) and root.is_dir() and name in os.listdir(root):
        path = root / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            raise RunError(
                f"{path}: a link to {os.path.realpath(path)} found; expected a folder in {root}/. "
                "Name the run by its path."
            )
        yield path
    yield Path(run)


def _check_own(path: Path) -> None:
    """Refuse a folder of a stranger through which training would read or write elsewhere."""
    try:
        odd = leads_out(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from None
    if odd is not None:
        raise RunError(
            f"{odd}: a link that leads out of the run's folder, a pipe or a device found; expected "
            "files and folders of the run's own. Put what it stands for there, or remove it."
        )
