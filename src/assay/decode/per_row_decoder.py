"""Reading rows one by one with PyTorch: slower, and no row can change the bits of another.

PyTorch's products sum in an order that depends on the whole batch, so a row read side by side with
others differs from the row alone in its last bits, and now and then in a token.

Shapes: W logits wanted, V vocabulary.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from assay.decode.batched_decoder import BatchedDecoder
from assay.decode.options import Extent, GenerateOptions
from assay.nn.model import GPT


@final
class PerRowDecoder:
    """Reads each row as if it were alone. Row p * n_samples + s is sample s of prompt p."""

    def __init__(
        self, model: GPT, prompts: Sequence[Sequence[int]], options: GenerateOptions
    ) -> None:
        self._n_samples = options.n_samples
        alone = options.model_copy(update={"n_samples": 1})
        self._rows = [
            BatchedDecoder(
                model,
                [prompt],
                Extent.of([prompt], alone, model.config.max_seq_len),
                use_cache=options.use_cache,
            )
            for prompt in prompts
            for _ in range(options.n_samples)
        ]

    @property
    def cache_bytes(self) -> int:
        """Memory of keys and values."""
        return sum(row.cache_bytes for row in self._rows)

    def prompt_logits(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "W V"]:
        """Read the prompts, once for each sample, and return the logits after them."""
        texts = [prompt for prompt in prompts for _ in range(self._n_samples)]
        return self.logits(range(len(texts)), texts, [[]] * len(texts))

    def logits(
        self,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
    ) -> Float[Tensor, "W V"]:
        """Return the logits after the text of each of `rows`."""
        each = zip(rows, texts, drafts, strict=True)
        return torch.cat(
            [self._rows[row].logits([0], [text], [draft]) for row, text, draft in each]
        )
