"""What `manifest.json` records, and what of it must still hold when a run goes on."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from assay.config import RunConfig
from assay.errors import CheckpointError, ConfigError, DataError, RunError
from assay.plugin import changed, recorded
from assay.runs.state import RunState
from assay.schema import config_hash, decode

_PACKAGES = ("assay", "torch", "numpy", "tokenizers", "safetensors", "pydantic")
_BITS_DEPEND_ON = (
    "device",
    "device_name",
    "backend",
    "precision",
    "attention",
    "compiled",
    "threads",
    "cpu_capability",
    "torch",
)


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_manifest(
    config: RunConfig, data: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest of a run that is about to start."""
    return {
        "status": "started",
        "config_sha256": config_hash(config),
        "data": dict(data),
        "seed": config.train.seed,
        "code": code_version(),
        "plugins": recorded(config),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "machine": dict(machine),
        "started": now(),
        "stretches": [],
        "notes": [],
    }


def code_version() -> dict[str, Any]:
    """Return the git commit of the source and whether it was changed; empty outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"git_commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def check_same_config(manifest: Mapping[str, Any], config: RunConfig, run: Path) -> None:
    """Compare the config with the one the run began with.

    Raises:
        RunError: If config.json was edited since, with both hashes.
    """
    began, found = str(manifest.get("config_sha256")), config_hash(config)
    if began != found:
        raise RunError(
            f"{run / 'config.json'}: SHA-256 {found[:16]}... found, {began[:16]}... when the run "
            "began: the config was edited. Put it back, or start a new run with the new settings."
        )


def check_same_run(
    state: RunState, config: RunConfig, manifest: Mapping[str, Any], checkpoint: Path
) -> None:
    """Compare what a checkpoint says of its run with the run it was found in.

    Raises:
        CheckpointError: If it was written by another run.
    """
    try:
        wrote = decode(RunConfig, state.config)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: the config in it is none: {error}") from None
    same = all(getattr(wrote, part) == getattr(config, part) for part in ("model", "data", "train"))
    if not same or state.data_sha256 != manifest["data"]["data_sha256"]:
        raise CheckpointError(
            f"{checkpoint}: written by a run of another config or text; expected one of this run. "
            "Move it away, or put the right one back."
        )


def check_same_data(began_with: Mapping[str, Any], data: Mapping[str, Any], run: Path) -> None:
    """Compare the hashes of text and tokenizer with those the run began with.

    Raises:
        DataError: If either differs, with both hashes.
    """
    hashes = [("text and split", began_with["data_sha256"], data["data_sha256"])]
    hashes += [("tokenizer", began_with["tokenizer_sha256"], data["tokenizer_sha256"])]
    hashes += [
        (f"tokens of {side}", began_with[side]["sha256"], data[side]["sha256"])
        for side in ("train", "val")
    ]
    for what, began, found in hashes:
        if began != found:
            raise DataError(
                f"{run}: the {what} changed: SHA-256 {found[:16]}... found, {began[:16]}... when "
                "the run began. Put the old text back, or start a new run on the new one."
            )


def check_same_plugins(manifest: Mapping[str, Any], config: RunConfig, *, allow: bool) -> list[str]:
    """Return which plug-ins changed since the run began.

    Raises:
        RunError: If any did and that is not allowed.
    """
    changes = changed(manifest.get("plugins"), config)
    if changes and not allow:
        raise RunError(
            f"{'; '.join(changes)}. Put the old file back, or go on all the same with --anyway, "
            "which is recorded."
        )
    return changes


def check_same_machine(
    before: Mapping[str, Any], machine: Mapping[str, Any], *, allow: bool
) -> list[str]:
    """Return what differs from where the run was last trained and may change its bits.

    Raises:
        RunError: If anything differs and that is not allowed.
    """
    then, now = _bits_of(before), _bits_of(machine)
    changes = [
        f"{name}: {then[name]} so far, {now[name]} here" for name in now if then[name] != now[name]
    ]
    if changes and not allow:
        raise RunError(
            f"the run would not go on bit for bit here ({'; '.join(changes)}). Restore that, such "
            "as by OMP_NUM_THREADS, or go on all the same with --anyway, which is recorded."
        )
    return changes


def _bits_of(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bits of a run depend on: among it that it is stacked, but not how high."""
    backend = machine.get("backend", "torch")
    stacked = machine.get("replicas", 1) > 1 and backend != "native"
    return {name: machine.get(name) for name in _BITS_DEPEND_ON} | {
        "backend": backend,
        "stacked with other runs": stacked,
    }
