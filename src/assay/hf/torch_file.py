"""A file of `torch.save`, opened for its tensors alone: the one place where a pickle is read.

A pickle is a program. Before it runs, its archive must hold nothing but plain, uncompressed records
and its program may name nothing but what tensors are made of; then PyTorch runs it with
`weights_only=True`, which no environment variable overrules where it is given, on a file mapped
into memory, so that a tensor costs nothing until it is looked at.
"""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.disk import size_of
from assay.errors import CheckpointError

_MOST_PROGRAM = 1 << 21  # bytes of the pickle itself, tensors aside; a large model's is a quarter
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_MADE_OF = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
    "__builtin__ set",
}
_SAVE_AGAIN = "Save the state dict alone: torch.save(model.state_dict(), FILE)."


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found in a file.

    Attributes:
        tensors: By name, without what torch.compile and data parallelism put before it.
        settings: `model_args`, as nanoGPT writes them; None if there are none.
        refused: Why each other thing in the file is left there, by its name.
    """

    tensors: dict[str, Tensor]
    settings: Mapping[str, Any] | None
    refused: dict[str, str]


def read_torch_file(path: Path) -> Contents:
    """Open a file of `torch.save` and sort what is in it; tensors stay mapped to the file.

    Raises:
        CheckpointError: If it is no such file, could run code, or would take more memory than it
            has bytes.
    """
    size = _check_archive(path)
    top = _unpickled(path)
    if not isinstance(top, Mapping):
        raise CheckpointError(
            f"{path}: {type(top).__name__} found; expected tensors by name. {_SAVE_AGAIN}"
        )
    inner = next((n for n in ("model", "state_dict") if isinstance(top.get(n), Mapping)), None)
    settings = top.get("model_args") if inner else None
    refused: dict[str, str] = {}
    if inner is not None:
        beside = [name for name in top if name not in (inner, "model_args")]
        refused = {_shown(name): f"{_kind(top[name])}, beside the weights" for name in beside}
    tensors: dict[str, Tensor] = {}
    for name, value in (top if inner is None else top[inner]).items():
        bare = _bare(name)
        if reason := _why_not(value) or _why_not_named(bare, tensors):
            refused[_shown(name)] = reason
        else:
            tensors[bare] = value.detach()
    _check_memory(path, tensors, size)
    return Contents(tensors, settings if isinstance(settings, Mapping) else None, refused)


def _check_archive(path: Path) -> int:
    """Return the size of the file, after looking at its records and what its program names."""
    try:
        size = size_of(path)
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            program = _program(path, records, size)
            globals_named = set(_globals(archive.read(program)))
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path}: not a file of torch.save, or one of PyTorch before 1.6; expected a zip "
            "archive. Open it where it comes from and save it again."
        ) from None
    except (EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        told = str(error) or "it ends before its records do"
        raise CheckpointError(f"{path}: {told}; expected a file of torch.save.") from None
    odd = sorted(name for name in globals_named if not _harmless(name))
    if odd:
        raise CheckpointError(
            f"{path}: its pickle names {_shown(', '.join(odd))}, no part of a tensor; expected "
            f"tensors, numbers, strings and containers. Nothing in it was run. {_SAVE_AGAIN}"
        )
    return size


def _program(path: Path, records: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    """Return the record that holds the pickle, after a look at all of them."""
    names = [record.filename for record in records]
    programs = [record for record in records if record.filename.endswith("data.pkl")]
    fault = (
        ("a record twice" if len(set(names)) < len(names) else "")
        or ("a compressed record" if any(record.compress_type for record in records) else "")
        or ("more bytes than it has" if sum(record.file_size for record in records) > size else "")
        or ("code (TorchScript)" if any(n.endswith("constants.pkl") for n in names) else "")
        or (f"{len(programs)} pickles" if len(programs) != 1 else "")
    )
    if fault:
        raise CheckpointError(f"{path}: {fault} found; expected an archive as torch.save makes it.")
    if programs[0].file_size > _MOST_PROGRAM:
        raise CheckpointError(
            f"{path}: a pickle of {programs[0].file_size} bytes found beside the tensors; expected "
            f"at most {_MOST_PROGRAM}. {_SAVE_AGAIN}"
        )
    return programs[0]


def _globals(program: bytes) -> Iterator[str]:
    """Yield each `module name` that a pickle would import; nothing is run."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL":
            yield str(argument)
        elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            yield f"something by {opcode.name}"


def _harmless(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    if name in _MADE_OF:
        return True
    is_storage = re.fullmatch(r"[A-Z][A-Za-z0-9]*Storage", attribute) is not None
    return module == "torch" and (
        is_storage or isinstance(getattr(torch, attribute, None), torch.dtype)
    )


def _unpickled(path: Path) -> Any:  # noqa: ANN401
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a program may end in any way
        first = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: PyTorch does not open it as weights only: {_shown(first)} {_SAVE_AGAIN}"
        ) from None


def _why_not_named(name: str, taken: Mapping[str, Tensor]) -> str:
    if not name:
        return "its name is none of a parameter"
    return f"a second tensor named {name}" if name in taken else ""


def _why_not(value: object) -> str:
    """Return why an entry is no weight; nothing if it may be one."""
    if not isinstance(value, Tensor):
        return f"{_kind(value)}, not a tensor"
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided:
        return f"a tensor of another kind ({type(value).__name__}, {value.layout})"
    if not value.is_floating_point():
        return f"{value.dtype}, not a floating dtype"
    if value.nbytes > value.untyped_storage().nbytes():
        return f"of shape {tuple(value.shape)}, with less data than that in the file"
    return ""


def _check_memory(path: Path, tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuse names that share their data, one tied matrix aside: each would be copied."""
    sizes = [tensor.nbytes for tensor in tensors.values()]
    if sum(sizes) - max(sizes, default=0) > size:
        raise CheckpointError(
            f"{path}: tensors of {sum(sizes)} bytes found in a file of {size}; expected each to "
            "have data of its own. The file was not made by saving a model."
        )


def _bare(name: object) -> str:
    """Return the name of a parameter as its model has it; nothing if it is no such name."""
    if not isinstance(name, str):
        return ""
    bare = name.replace("_orig_mod.", "").removeprefix("module.")
    return bare if len(bare) <= 200 and _NAME.fullmatch(bare) else ""


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return "a tensor"
    if isinstance(value, Mapping | list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _shown(name: object) -> str:
    """Return a name for people: short, and of letters that cannot steer a terminal."""
    text = name if isinstance(name, str) else f"({type(name).__name__})"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:200])
