"""A Hugging Face folder: `config.json` beside `model.safetensors`, in one file or in shards.

Only JSON and safetensors are opened, neither of which can run code; a pickle never is.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assay.errors import CheckpointError
from assay.hf.convert import from_hf, to_hf
from assay.nn.model import GPT

_WEIGHTS, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


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
    return from_hf(_read_json(place / _CONFIG), _SavedTensors(place))


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
    """Tensors by name, each read from its file when asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = _files_by_name(folder)

    def __getitem__(self, name: str) -> Tensor:
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: tensor {name} cannot be read: {error}; expected what "
                f"{_INDEX} promises. Fetch the file again."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _files_by_name(folder: Path) -> dict[str, Path]:
    if (folder / _WEIGHTS).is_file():
        return dict.fromkeys(_names_in(folder / _WEIGHTS), folder / _WEIGHTS)
    if not (folder / _INDEX).is_file():
        pickles = [path.name for path in sorted(folder.glob("*.bin"))]
        also = f" {pickles[0]} is a pickle, which can run code and is never opened." * bool(pickles)
        raise CheckpointError(
            f"{folder}: no {_WEIGHTS} and no {_INDEX}; expected one of them.{also} Write it in "
            "transformers by `model.save_pretrained(FOLDER)`."
        )
    shards = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{folder / _INDEX}: no weight_map; expected file names by tensor.")
    return {name: _shard(folder, file) for name, file in shards.items()}


def _names_in(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: {error}; expected a whole safetensors file. Fetch it again."
        ) from None


def _shard(folder: Path, name: object) -> Path:
    """Return the path of a shard; an index may not point outside its folder."""
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        raise CheckpointError(
            f"{folder / _INDEX}: shard {name!r} found; expected the name of a file in the folder. "
            "Fetch what is missing."
        )
    return folder / name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; expected beside the weights.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}; expected readable JSON. Fetch it again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: {type(data).__name__} found; expected a JSON object.")
    return data
