"""Between Hugging Face's weights and ours, in both directions.

Every tensor must find its place: one too many or too few is an error, and so is a config field
that our modules cannot express. A conversion moves numbers and computes none, so it is exact.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import CheckpointError, ConfigError
from assay.hf.family import Family
from assay.hf.fields import Fields
from assay.hf.gpt2 import GPT2
from assay.hf.gpt_neox import GPT_NEOX
from assay.hf.llama import LLAMA, MISTRAL, QWEN3
from assay.hf.names import HEAD, Entry
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode, shown

FAMILIES = (GPT2, LLAMA, MISTRAL, QWEN3, GPT_NEOX)
_WEIGHTS_ARE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_ALIASES = {"embed_out.weight": HEAD}  # GPT-NeoX's head before transformers 5


def model_config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """Return the architecture that a Hugging Face config describes.

    Fields left out take the defaults of transformers. Fields about tokens, files and generation
    are passed over.

    Raises:
        ConfigError: For an unknown `model_type`, or a value that our modules cannot express.
    """
    family = _family(config)
    fields = Fields(config, family.model_type)
    fields.only("quantization_config", None)
    fields.only("auto_map", None)  # a model of Python code in the folder, which is never run
    fields.only("trust_remote_code", False)
    try:
        return decode(ModelConfig, family.read(fields))
    except ConfigError as error:
        if str(error).startswith("Hugging Face"):
            raise
        raise ConfigError(f"Hugging Face config of {family.model_type}, as ours: {error}") from None


def from_hf(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GPT:
    """Return the model in evaluation mode, of the dtype and on the device of `state`.

    `state` may be that of the model with its head or of the bare one; tensors are read one at a
    time and copied, so a lazy mapping never holds more than one.

    Raises:
        ConfigError: As `model_config_from_hf` does.
        CheckpointError: If a tensor is missing, left over, of another shape or not of one floating
            dtype, or if a tied model comes with an output matrix of its own.
    """
    family, model, found = _fitting(config, state)
    weights: dict[str, Tensor] = {}
    dtype: torch.dtype | None = None
    for entry in family.entries(model.config):
        theirs = state[found.pop(entry.theirs)]
        dtype = _check(entry, theirs, model, dtype)
        for name, part in zip(entry.ours, entry.layout.split(theirs), strict=True):
            weights[name] = part.detach().clone(memory_format=torch.contiguous_format)
    if HEAD in found and not torch.equal(state[found[HEAD]], weights["embed.weight"]):
        raise CheckpointError(
            f"{found[HEAD]}: differs from the token embedding; expected the same values, since "
            "tie_word_embeddings is true. Set tie_word_embeddings to false to keep both."
        )
    model.load_state_dict(weights, assign=True)
    return model.eval()


def check_shapes(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Check all that `from_hf` does but values, so `state` may be of tensors on the meta device.

    Raises:
        ConfigError, CheckpointError: As `from_hf` does.
    """
    family, model, found = _fitting(config, state)
    dtype: torch.dtype | None = None
    for entry in family.entries(model.config):
        dtype = _check(entry, state[found[entry.theirs]], model, dtype)
    head, embedding = found.get(HEAD), model.embed.weight
    if head and (state[head].shape, state[head].dtype) != (embedding.shape, dtype):
        raise CheckpointError(
            f"{head}: {tuple(state[head].shape)} of {state[head].dtype} found; expected "
            f"{tuple(embedding.shape)} of {dtype}. Config and weights belong to different models."
        )


def to_hf(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of the first family that can hold the model; tensors are copies.

    A tied output matrix is left out, as safetensors asks. Token ids such as the end of text are
    not known here: they are null and can be set afterwards.

    Raises:
        ConfigError: If no family can, with the first reason for each.
    """
    family = _family_for(model.config)
    ours = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    for entry in family.entries(model.config):
        joined = entry.layout.join([ours[name].detach() for name in entry.ours])
        state[entry.theirs] = joined.clone(memory_format=torch.contiguous_format)
    common = {
        "model_type": family.model_type,
        "architectures": [family.architecture],
        "vocab_size": model.config.vocab,
        "tie_word_embeddings": model.config.tied,
        "torch_dtype": str(model.embed.weight.dtype).removeprefix("torch."),
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return {**common, **family.write(model.config)}, state


def _family(config: Mapping[str, Any]) -> Family:
    found = config.get("model_type")
    for family in FAMILIES:
        if found == family.model_type:
            return family
    known = ", ".join(family.model_type for family in FAMILIES)
    raise ConfigError(
        f"Hugging Face config: model_type is {shown(found)}; expected one of: {known}. Other "
        "architectures are not read."
    )


def _family_for(config: ModelConfig) -> Family:
    unmet = {family: family.unmet(config) for family in FAMILIES}
    for family, reason in unmet.items():
        if reason is None:
            return family
    reasons = "; ".join(f"{family.model_type} needs {reason}" for family, reason in unmet.items())
    raise ConfigError(f"model: no Hugging Face family can hold it: {reasons}.")


def _fitting(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[Family, GPT, dict[str, str]]:
    """Return family, model without memory, and their names by the family's, all checked."""
    family, model_config = _family(config), model_config_from_hf(config)
    found = _found_names(family, state)
    _check_names(family, model_config, found)
    with torch.device("meta"):
        return family, GPT(model_config), found


def _found_names(family: Family, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the names of `state` under those of the model with its head, buffers left out."""
    found: dict[str, str] = {}
    for name in state:
        bare = _ALIASES.get(name, name).removeprefix(family.prefix)
        if family.buffers.fullmatch(bare):
            continue
        full = bare if bare == HEAD else f"{family.prefix}{bare}"
        if full in found:
            raise CheckpointError(
                f"{name}: the same tensor as {found[full]}; expected one of the two names."
            )
        found[full] = name
    return found


def _check_names(family: Family, config: ModelConfig, found: Mapping[str, str]) -> None:
    """Compare names before anything is built, so a config of a billion layers costs nothing."""
    unused = set(found) - ({HEAD} if config.tied else set())
    for entry in family.entries(config):
        if entry.theirs not in found:
            raise CheckpointError(
                f"{entry.theirs}: missing; expected in the weights of a {family.model_type} with "
                f"this config. Names found: {', '.join(islice(found.values(), 4)) or 'none'}, ..."
            )
        unused.discard(entry.theirs)
    if unused:
        raise CheckpointError(
            f"{found[min(unused)]}: no place for it in a {family.model_type} with this config, nor "
            f"for {len(unused) - 1} more tensors; expected none left over. Check the config."
        )


def _check(
    entry: Entry, theirs: Tensor, model: nn.Module, dtype: torch.dtype | None
) -> torch.dtype:
    """Compare one tensor with the model and with the dtype of those before; return its dtype."""
    expected = entry.layout.join([model.get_parameter(name) for name in entry.ours]).shape
    if theirs.shape != expected:
        raise CheckpointError(
            f"{entry.theirs}: shape {tuple(theirs.shape)} found; expected {tuple(expected)} from "
            "the config. Config and weights belong to different models."
        )
    dtype = dtype or theirs.dtype
    if theirs.dtype != dtype or dtype not in _WEIGHTS_ARE:
        expected_dtype = dtype if dtype in _WEIGHTS_ARE else "a floating dtype of 16 bits or more"
        raise CheckpointError(
            f"{entry.theirs}: {theirs.dtype} found; expected {expected_dtype}, one for the whole "
            "model. Cast the weights first."
        )
    return theirs.dtype
