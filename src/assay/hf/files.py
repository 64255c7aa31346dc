"""A Hugging Face folder: `config.json` beside `model.safetensors`, in one file or in shards.

Only JSON and safetensors are opened, neither of which can run code; a pickle never is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os.path import isfile  # a name too long is no file; pathlib raises
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.disk import check_header, leads_out, read_json
from assay.errors import CheckpointError
from assay.hf.convert import check_shapes, from_hf, to_hf
from assay.nn.model import GPT
from assay.schema import cut, shown

_WEIGHTS, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_MOST_CONFIG, _MOST_INDEX = 1 << 20, 1 << 22  # bytes; in use are a few KB, and under 200 KB
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
}


def load_hf(folder: Path | str) -> GPT:
    """Return the model of a local folder, in evaluation mode and in the dtype of its file.

    Raises:
        ConfigError: If our modules cannot express the config.
        CheckpointError: If a file is missing, unreadable or corrupt, or as `from_hf` does.
    """
    place = Path(folder)
    if not place.is_dir():
        raise CheckpointError(
            f"{place}: no such folder; expected one with {_CONFIG} and {_WEIGHTS}. A model of the "
            "hub is downloaded first, by `hf download NAME --local-dir FOLDER`."
        )
    _check_own(place)
    config, tensors = _read_json(place / _CONFIG, _MOST_CONFIG), _SavedTensors(place)
    check_shapes(config, tensors.shapes())
    return from_hf(config, tensors)


def save_hf(model: GPT, folder: Path | str) -> None:
    """Write a folder that `transformers` and `load_hf` read.

    Raises:
        ConfigError: If no Hugging Face family can hold the model.
        CheckpointError: If the folder is there already and not empty, or cannot be written.
    """
    config, state = to_hf(model)
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise CheckpointError(f"{place}: not empty; expected a new folder. Name another one.")
        save_file(state, place / _WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True)
        (place / _CONFIG).write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{place}: cannot be written: {error}.") from error


@final
class _SavedTensors(Mapping[str, Tensor]):
    """Tensors by name, each read from its file when asked for; an index names files by tensor."""

    def __init__(self, folder: Path) -> None:
        self._files = _files_by_name(folder)

    def __getitem__(self, name: str) -> Tensor:
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: tensor {cut(name)} cannot be read: {cut(str(error))}; expected what "
                f"{_INDEX} promises. Fetch the file again."
            ) from None

    def shapes(self) -> dict[str, Tensor]:
        """Return shape and dtype of each as the files' headers tell them: tensors without data."""
        names: dict[Path, list[str]] = {}
        for name, path in self._files.items():
            names.setdefault(path, []).append(name)
        return {name: told for path in names for name, told in _shapes_in(path, names[path])}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _files_by_name(folder: Path) -> dict[str, Path]:
    if (folder / _WEIGHTS).is_file():
        return dict.fromkeys(_names_in(folder / _WEIGHTS), folder / _WEIGHTS)
    if not (folder / _INDEX).is_file():
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLES]
        also = (
            f" {pickles[0]} is a pickle, which can run code: `assay import` reads it without."
            if pickles
            else ""
        )
        raise CheckpointError(
            f"{folder}: no {_WEIGHTS} and no {_INDEX}; expected one of them.{also} Write it in "
            "transformers by `model.save_pretrained(FOLDER)`."
        )
    shards = _read_json(folder / _INDEX, _MOST_INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{folder / _INDEX}: no weight_map; expected file names by tensor.")
    return {name: _shard(folder, file) for name, file in shards.items()}


def _names_in(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


def _shapes_in(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    with _opened(path) as file:
        for name in names:
            part = _slice(file, name, path)
            dtype = _DTYPES.get(part.get_dtype(), torch.uint8)  # nor is any other a weight's
            yield name, torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _slice(file: Any, name: str, path: Path) -> Any:  # noqa: ANN401
    try:
        return file.get_slice(name)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: tensor {cut(name)} cannot be read: {cut(str(error))}; expected what {_INDEX} "
            "promises. Fetch the file again."
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file whose header is of an honest length."""
    try:
        check_header(path)
        file = safe_open(path, framework="pt")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: {cut(str(error))}; expected a whole safetensors file. Fetch it again."
        ) from None
    with file:
        yield file


def _shard(folder: Path, name: object) -> Path:
    """Return the path of a shard; an index may not point outside its folder."""
    if not isinstance(name, str) or Path(name).name != name or not isfile(folder / name):
        raise CheckpointError(
            f"{folder / _INDEX}: shard {shown(name)} found; expected the name of a file in the "
            "folder. Fetch what is missing."
        )
    return folder / name


def _check_own(folder: Path) -> None:
    """Refuse links that lead out, but those of the hub's cache, where a snapshot links to blobs."""
    snapshot = folder.absolute()
    blobs = [snapshot.parents[1] / "blobs"] if snapshot.parent.name == "snapshots" else []
    try:
        odd = leads_out(folder, also=blobs)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}.") from None
    if odd is not None:
        raise CheckpointError(
            f"{odd}: a link that leads out of the folder, a pipe or a device found; expected files "
            "of its own. Put what it stands for there, or remove it."
        )


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    try:
        return read_json(path, limit, finite=False)  # transformers may write Infinity
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; expected beside the weights.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; expected readable JSON. Fetch it again.") from None
