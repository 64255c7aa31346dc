"""From the tensors of a PyTorch pickle to a model: nanoGPT's, Hugging Face's, or with our names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.disk import read_json
from assay.errors import CheckpointError, ConfigError
from assay.hf.convert import FAMILIES, from_hf, model_config_from_hf
from assay.hf.names import HEAD
from assay.hf.torch_file import Contents
from assay.nn.model import GPT, ModelConfig

_MOST_CONFIG = 1 << 20  # bytes of a config.json
_LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_SETTINGS = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
_LARGEST = 1 << 26
_ALIASES = {"embed_out.weight": HEAD}  # as in hf/convert.py
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Tensors sorted for a model that is not built yet.

    Attributes:
        source: What the file was taken for.
        taken: Tensors by the names of the family, or by ours.
        refused: Why each other thing in the file is left there.
        misfits: Those of `refused` that look like weights of another model.
        config: The family's config, or ours.
        added: Names of `taken` that are not in the file: biases of zeros, where it has none.
    """

    source: str
    taken: Mapping[str, Tensor]
    refused: Mapping[str, str]
    misfits: tuple[str, ...]
    config: Mapping[str, Any] | ModelConfig
    added: frozenset[str] = frozenset()

    def build(self) -> GPT:
        """Return the model; this is where memory is taken.

        Raises:
            ConfigError, CheckpointError: If weights are left over, or as `from_hf` does.
        """
        if self.misfits:
            raise CheckpointError(
                f"{self.misfits[0]}: {self.refused[self.misfits[0]]}; {len(self.misfits)} tensors "
                "in all have no place, expected none. Nothing was written. Check the config."
            )
        if not isinstance(self.config, ModelConfig):
            return from_hf(self.config, self.taken)
        with torch.device("meta"):
            model = GPT(self.config)
        weights = {
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in self.taken.items()
        }
        model.load_state_dict(weights, assign=True)
        return model.eval()


def choose(contents: Contents, file: Path, config: ModelConfig | None) -> Candidate:
    """Decide what the tensors are: ours if a config is given, nanoGPT's, or Hugging Face's.

    Raises:
        ConfigError: If the settings beside the tensors cannot be expressed.
        CheckpointError: If a tensor is missing, or nothing says what the tensors are.
    """
    if config is not None:
        return _ours(contents, config)
    if contents.settings is not None:
        return _nanogpt(contents, contents.settings)
    beside = file.parent / "config.json"
    if not beside.is_file():
        raise CheckpointError(
            f"{file}: neither model_args in the file nor a config.json beside it found; expected "
            "one that says what the tensors are. For tensors with assay's names give --config."
        )
    try:
        theirs = read_json(beside, _MOST_CONFIG)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside}: {error}. Fetch it again.") from None
    return _hugging_face("Hugging Face", contents, theirs, contents.tensors)


def _ours(contents: Contents, config: ModelConfig) -> Candidate:
    if config.vocab_size is None and (embed := contents.tensors.get("embed.weight")) is not None:
        config = config.model_copy(update={"vocab_size": embed.shape[0]})
    _ = config.vocab
    with torch.device("meta"):
        state = GPT(config).state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items()}
    return _sorted("assay", contents, contents.tensors, expected, config)


def _hugging_face(
    source: str, contents: Contents, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Candidate:
    model_config = model_config_from_hf(config)
    (family,) = (f for f in FAMILIES if f.model_type == config["model_type"])
    full: dict[str, Tensor] = {}
    masks: dict[str, str] = {}
    for name, tensor in tensors.items():
        bare = _ALIASES.get(name, name).removeprefix(family.prefix)
        known = bare if bare == HEAD else f"{family.prefix}{bare}"
        if family.buffers.fullmatch(bare):
            masks[name] = "a mask or table of the model, not a weight"
        elif known in full:
            raise CheckpointError(f"{name}: found twice, with and without {family.prefix!r}.")
        else:
            full[known] = tensor
    for entry in family.entries(model_config):  # before a config of a billion layers is built
        _check_present(entry.theirs, full)
    with torch.device("meta"):
        model = GPT(model_config)
    expected: Shapes = {}
    for entry in family.entries(model_config):
        joined = entry.layout.join([model.get_parameter(name) for name in entry.ours])
        expected[entry.theirs] = tuple(joined.shape)
    if model_config.tied and HEAD in full:
        expected[HEAD] = tuple(model.embed.weight.shape)
    sorted_out = _sorted(source, contents, full, expected, config)
    return replace(sorted_out, refused=masks | dict(sorted_out.refused))


def _nanogpt(contents: Contents, settings: Mapping[str, Any]) -> Candidate:
    """Read nanoGPT's names as Hugging Face's GPT-2, whose linear layers are stored transposed.

    A model without biases becomes one whose biases are zero, which computes the same.

    Source: github.com/karpathy/nanoGPT, model.py (GPTConfig, GPT) and train.py (ckpt.pt).
    """
    numbers = {name: _number(settings, name) for name in _SETTINGS}
    tensors = dict(contents.tensors)
    if numbers["n_layer"] > len(tensors):
        raise CheckpointError(
            f"model_args: n_layer {numbers['n_layer']} found for {len(tensors)} tensors; expected "
            "several tensors a layer. The file is not whole."
        )
    for name in [name for name in tensors if name.endswith(tuple(f"{n}.weight" for n in _LINEAR))]:
        if tensors[name].dim() == 2:
            tensors[name] = tensors[name].T
    embed = tensors.get("transformer.wte.weight")
    found = None if embed is None else tuple(embed.shape)
    if embed is None or found != (numbers["vocab_size"], numbers["n_embd"]):
        raise CheckpointError(
            f"transformer.wte.weight: shape {found} found; expected "
            f"{(numbers['vocab_size'], numbers['n_embd'])} by model_args. Nothing was built."
        )
    zeros = {} if settings.get("bias", True) else _zero_biases(numbers, embed.dtype)
    added = frozenset(zeros.keys() - tensors.keys())
    head, dropout = tensors.get(HEAD), settings.get("dropout", 0.0)
    if not isinstance(dropout, int | float):
        raise ConfigError(f"model_args.dropout: {_told(dropout)} found; expected a number.")
    config = {
        "model_type": "gpt2",
        "vocab_size": numbers["vocab_size"],
        "n_positions": numbers["block_size"],
        "n_embd": numbers["n_embd"],
        "n_layer": numbers["n_layer"],
        "n_head": numbers["n_head"],
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-5,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout),
        "tie_word_embeddings": head is None or _same(head, embed),
    }
    return replace(_hugging_face("nanoGPT", contents, config, zeros | tensors), added=added)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _zero_biases(numbers: Mapping[str, int], dtype: torch.dtype) -> dict[str, Tensor]:
    width = numbers["n_embd"]
    sizes = {"ln_1": 1, "attn.c_attn": 3, "attn.c_proj": 1}
    sizes |= {"ln_2": 1, "mlp.c_fc": 4, "mlp.c_proj": 1}
    layers = range(numbers["n_layer"])
    names = {f"h.{layer}.{part}": size for layer in layers for part, size in sizes.items()}
    return {
        f"transformer.{name}.bias": torch.zeros(size * width, dtype=dtype)
        for name, size in {**names, "ln_f": 1}.items()
    }


def _number(settings: Mapping[str, Any], name: str) -> int:
    found = settings.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= _LARGEST:
        raise ConfigError(
            f"model_args.{name}: {_told(found)} found; expected a whole number from 1 to "
            f"{_LARGEST}, as nanoGPT writes it."
        )
    return found


def _told(value: object) -> str:
    """Return a number as it is, and of anything else only what it is."""
    return str(value) if isinstance(value, float) else type(value).__name__


def _check_present(name: str, tensors: Mapping[str, Tensor]) -> None:
    if name not in tensors:
        raise CheckpointError(
            f"{name}: missing; expected by the config, beside the {len(tensors)} tensors found. "
            "The file is not whole, or its weights are in several files."
        )


def _sorted(
    source: str,
    contents: Contents,
    tensors: Mapping[str, Tensor],
    expected: Shapes,
    config: Mapping[str, Any] | ModelConfig,
) -> Candidate:
    """Tell what fits from what does not; what is expected and missing is an error."""
    for name in expected:
        _check_present(name, tensors)
    misfits = {
        name: _misfit(tensor, expected.get(name))
        for name, tensor in tensors.items()
        if tuple(tensor.shape) != expected.get(name)
    }
    taken = {name: tensor for name, tensor in tensors.items() if name not in misfits}
    refused = {**contents.refused, **misfits}
    return Candidate(source, taken, refused, tuple(misfits), config)


def _misfit(tensor: Tensor, expected: tuple[int, ...] | None) -> str:
    found = tuple(tensor.shape)
    if expected is None:
        return f"shape {found}, and the config has no place for it"
    return f"shape {found} found, {expected} expected by the config"
