"""Who reads a model: the kernels where they can, PyTorch elsewhere.

Shapes: W logits wanted, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from assay.decode.batched_decoder import BatchedDecoder
from assay.decode.cuda_graph_decoder import CudaGraphDecoder
from assay.decode.native_decoder import NativeDecoder
from assay.decode.options import Extent, GenerateOptions
from assay.decode.per_row_decoder import PerRowDecoder
from assay.decode.quantized import QuantizedModel
from assay.decode.weights import Weights
from assay.errors import ConfigError
from assay.native.build import Part, kernels
from assay.native.kinds import unsupported
from assay.nn.model import GPT

_PART_OF: dict[Weights, Part] = {
    "fp32": "decode_fp32",
    "bf16": "decode_bf16",
    "int8": "decode_int8",
}


@runtime_checkable
class Decoder(Protocol):
    """Reads texts and says what may follow. Row p * n_samples + s is sample s of prompt p."""

    @property
    def cache_bytes(self) -> int:
        """Memory of keys and values."""
        ...

    def prompt_logits(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "W V"]:
        """Read the prompts, each once, and return the logits after them, a row each."""
        ...

    def logits(
        self,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
    ) -> Float[Tensor, "W V"]:
        """Return the logits after the text of each of `rows`, and after each token of its draft."""
        ...


def open_reader(
    packed: QuantizedModel, prompts: Sequence[Sequence[int]], options: GenerateOptions
) -> Decoder:
    """Return the reader of a generation.

    Raises:
        ConfigError: If the kernels are asked for, or needed for drafts, and cannot read the model.
    """
    model = packed.model
    why_not = _why_not_native(model, options, packed.weights or "fp32")
    extent = Extent.of(prompts, options, model.config.max_seq_len)
    if why_not is None:
        return NativeDecoder(kernels(), packed, len(prompts), extent)
    _check_not_needed(why_not, options)
    _check_graphs(options)
    if options.reader == "graphs":
        return CudaGraphDecoder(packed.twin, prompts, extent)
    if options.exact:
        return PerRowDecoder(packed.twin, prompts, options)
    return BatchedDecoder(packed.twin, prompts, extent, use_cache=options.use_cache)


def _why_not_native(model: GPT, options: GenerateOptions, weights: Weights) -> str | None:
    if options.reader in ("torch", "graphs"):
        return f"generate.reader={options.reader}"
    if not options.use_cache:
        return "generate.use_cache=false"
    if (found := unsupported(model)) is not None:
        return found
    return kernels().lacks(_PART_OF[weights])


def _check_graphs(options: GenerateOptions) -> None:
    if options.reader == "graphs" and (options.exact or not options.use_cache):
        found = "exact=true" if options.exact else "use_cache=false"
        raise ConfigError(
            f"generate.reader: graphs found with {found}; expected a batch read side by side with "
            "a cache. Use reader=torch."
        )


def _check_not_needed(why_not: str, options: GenerateOptions) -> None:
    if options.reader == "native":
        raise ConfigError(
            f"generate.reader: native found, but the C++ kernels cannot be used: {why_not}. Use "
            "reader=auto."
        )
    if options.lookup:
        raise ConfigError(
            f"generate.lookup: {options.lookup} found, but drafts need the C++ kernels, which "
            f"cannot be used: {why_not}. Set lookup to 0."
        )
