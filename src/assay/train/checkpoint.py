"""Checkpoints that are whole or absent, and never trusted unread.

    step-000500/
        model.safetensors   the weights, each once
        optim.safetensors   the optimizers' state, as `parameter/quantity`
        state.json          step, config and what else the run needs to go on
        MANIFEST.json       size and SHA-256 of each file above

A checkpoint is written into a temporary folder, flushed to the disk, renamed, and the parent folder
flushed, so that a name without `.tmp` is always complete. One of the same step that is there
already is `step-000500.old` until the new one has its name. Hashes are checked before a loader
opens a file. No pickle, ever.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.disk import check_header, flush, read_json, sha256_of
from assay.errors import CheckpointError, RunError
from assay.nn.model import GPT, ModelConfig

MODEL, OPTIM, STATE, MANIFEST = (
    "model.safetensors",
    "optim.safetensors",
    "state.json",
    "MANIFEST.json",
)
_STEP = re.compile(r"step-(\d{6,15})(\.old)?")
_JSON_BYTES = 1 << 21  # of state.json and MANIFEST.json, which have a few kilobytes
_WEIGHTS_ARE = "F32"  # in the words of safetensors


def write_checkpoint(
    parent: Path, model: GPT, optim: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of `state["step"]` under `parent` and return its folder.

    Raises:
        RunError: If the disk is full or the folder cannot be written; nothing is left behind.
    """
    final = parent / f"step-{state['step']:06d}"
    temporary = parent / f"{final.name}.tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(_contiguous(model.state_dict()), temporary / MODEL)
        save_file(_contiguous(optim), temporary / OPTIM)
        (temporary / STATE).write_text(json.dumps(state, indent=1, allow_nan=False))
        files = {name: _fingerprint(temporary / name) for name in (MODEL, OPTIM, STATE)}
        (temporary / MANIFEST).write_text(json.dumps(files, indent=1))
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        old = parent / f"{final.name}.old"
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        temporary.rename(final)
        flush(parent)
        flush(parent.parent)  # which got `parent` with the first checkpoint
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"{final}: the checkpoint could not be written: {_reason(error)}. Earlier checkpoints "
            "are whole. Make room or permission, then resume the run."
        ) from error
    return final


def verify_checkpoint(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: Naming the first file that is missing, of another size or of another hash.
    """
    for path in (folder / name for name in (*_files(), MANIFEST)):
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{path}: missing or a link; expected a file.")
    manifest = _read_json(folder / MANIFEST)
    try:
        expected = {name: (manifest[name]["bytes"], manifest[name]["sha256"]) for name in _files()}
    except (LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST}: unreadable ({error!r}); expected size and SHA-256 of each file."
        ) from None
    for name, (size, digest) in expected.items():
        path = folder / name
        found = _fingerprint(path)
        if found != {"bytes": size, "sha256": digest}:
            raise CheckpointError(
                f"{path}: {found['bytes']} bytes of SHA-256 {found['sha256'][:12]}... found; "
                f"expected {size} bytes of {str(digest)[:12]}...: the file was changed or damaged."
            )


def checkpoints(parent: Path) -> list[Path]:
    """Return the checkpoint folders under `parent`, newest first; one of each step."""
    if not parent.is_dir():
        return []
    found: dict[int, Path] = {}
    for path in sorted(parent.iterdir(), reverse=True):  # step-1.old comes before step-1
        if (step := step_of(path)) is not None and not path.is_symlink():
            found[step] = path
    return [found[step] for step in sorted(found, reverse=True)]


def step_of(folder: Path) -> int | None:
    """Return the step that the name of a checkpoint says, or None for another folder."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else None


def newest_valid(parent: Path) -> tuple[Path, list[str]]:
    """Return the newest checkpoint that verifies, and why any newer one was set aside.

    A bad one is renamed to `step-NNNNNN.bad`, so that it is neither used nor lost.

    Raises:
        CheckpointError: If none verifies.
    """
    reasons = []
    for folder in checkpoints(parent):
        try:
            verify_checkpoint(folder)
        except CheckpointError as error:
            reasons.append(f"{error} Set aside as {set_aside(folder).name}.")
        else:
            return folder, reasons
    raise CheckpointError(
        f"{parent}: no whole checkpoint found. " + (" ".join(reasons) or "None was written yet.")
    )


def set_aside(folder: Path) -> Path:
    """Rename a bad checkpoint so that no loader takes it, and return its new path."""
    bad = folder.with_name(f"{folder.name}.bad")
    shutil.rmtree(bad, ignore_errors=True)
    try:
        return folder.rename(bad)
    except OSError:  # a read-only disk: it is passed over all the same
        return folder


def read_state(folder: Path) -> dict[str, Any]:
    """Return `state.json` of a verified checkpoint.

    Raises:
        CheckpointError: If it is no JSON object, or of another step than the folder's name says.
    """
    state = _read_json(folder / STATE)
    if state.get("step") != step_of(folder):
        raise CheckpointError(
            f"{folder}: holds step {state.get('step')!r}; expected the step in its name. Give it "
            "back the name it was written with, or move it away."
        )
    return state


def read_optim(folder: Path) -> dict[str, Tensor]:
    """Return the optimizers' state of a verified checkpoint, on the CPU.

    Raises:
        CheckpointError: If it is no safetensors file.
    """
    try:  # for each weight a few tensors: no more than so many times the other header
        check_header(folder / OPTIM, (1 << 16) + 4 * check_header(folder / MODEL))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / OPTIM}: unreadable ({error}).") from None
    return _load(folder / OPTIM)


def read_model(folder: Path, config: ModelConfig, device: torch.device | str = "cpu") -> GPT:
    """Build the model of `config` with the weights of a verified checkpoint.

    Names and shapes are compared with the config before memory is taken.

    Raises:
        CheckpointError: If the file is not of this config.
    """
    try:
        check_header(folder / MODEL)
        with safe_open(folder / MODEL, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder / MODEL}: unreadable ({error}).") from None
    if config.n_layers > len(found):  # before so many are built
        raise CheckpointError(
            f"{folder / MODEL}: {len(found)} tensors found; expected some for each of "
            f"{config.n_layers} layers: the weights are of another model config."
        )
    with torch.device("meta"):
        model = GPT(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if odd := sorted(name for name in expected | found if expected.get(name) != found.get(name)):
        name = odd[0]
        raise CheckpointError(
            f"{folder / MODEL}: {name} of shape {found.get(name)} found; expected "
            f"{expected.get(name)}: the weights are of another model config."
        )
    weights = {name for name, _ in model.named_parameters()}
    if odd := sorted(name for name in weights if dtypes[name] != _WEIGHTS_ARE):
        raise CheckpointError(
            f"{folder / MODEL}: {odd[0]} of dtype {dtypes[odd[0]]} found; expected {_WEIGHTS_ARE}, "
            "as runs write it."
        )
    model.load_state_dict(_load(folder / MODEL), assign=True)
    model.fill_unsaved_buffers()
    return model.to(device)


def _files() -> Iterator[str]:
    yield from (MODEL, OPTIM, STATE)


def _load(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, each in memory of PyTorch's own.

    In the file they begin at any byte, and PyTorch's products round otherwise where their operands
    are not aligned as PyTorch aligns them: a resumed run would part from itself by bits.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}).") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, _JSON_BYTES)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}).") from None


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
