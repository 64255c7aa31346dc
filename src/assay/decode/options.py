"""What is asked for when text is generated, draws aside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from pydantic import Field, NonNegativeInt

from assay.decode.weights import Weights
from assay.schema import Config

Word = Annotated[int, Field(ge=0, lt=2**64)]


class GenerateOptions(Config):
    """How much is generated, from what seed, how far back the model looks and how it is read."""

    max_new_tokens: NonNegativeInt = 256
    """Tokens after the prompt, in each row."""
    n_samples: Annotated[int, Field(gt=0, le=1 << 16)] = 1
    """Texts for each prompt."""
    seed: Word = 0
    """With the numbers of prompt, sample and step it fixes every draw."""
    first_prompt: Word = 0
    """Number of the first prompt; a list cut into batches draws as it would have whole."""
    stop_tokens: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()
    """Ids that end a row; the id itself is still given out."""
    window: Literal["recompute", "rolling"] = "recompute"
    """Past `model.max_seq_len`: crop and count positions anew, or let positions go on."""
    use_cache: bool = True
    """Whether keys and values are kept; the tokens are the same without, and slower."""
    weights: Weights | None = None
    """Round the matrices to bf16 or int8, which changes the model a little. Null: as they are."""
    lookup: Annotated[int, Field(ge=0, le=64)] = 0
    """Tokens drafted from the text itself and checked in one pass; the text is the same."""
    reader: Literal["auto", "native", "torch", "graphs"] = "auto"
    """The C++ kernels; PyTorch; PyTorch with each step a CUDA graph; or the kernels where they can
    read the model, and PyTorch elsewhere."""
    exact: bool = False
    """Whether a row has the same bits in any batch where PyTorch reads too: it then reads row by
    row, which is slower. With the kernels it always has."""


@final
@dataclass(frozen=True, slots=True)
class Extent:
    """How much a reader must be ready for.

    Attributes:
        n_samples: Rows of each prompt.
        longest: Tokens of the longest row that are in sight at once.
        context: Tokens in sight, beyond which positions are counted anew; None: the model rolls.
    """

    n_samples: int
    longest: int
    context: int | None

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], options: GenerateOptions, max_seq_len: int
    ) -> "Extent":
        """Return what `options` ask of a model after `prompts`."""
        longest = max(map(len, prompts)) + options.max_new_tokens
        if options.window == "rolling":
            return cls(options.n_samples, longest, None)
        return cls(options.n_samples, min(longest, max_seq_len), max_seq_len)
