"""Reading rows side by side with PyTorch: the whole batch at once, on any device.

Shapes: R rows, C columns (tokens of the longest row), W logits wanted, V vocabulary. Rows are
aligned on the right; shorter ones start with padding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.decode.options import Extent
from assay.nn.cache import KVCache
from assay.nn.model import GPT


@final
class BatchedDecoder:
    """Reads one new column of all rows at a time, or all columns where there is no cache.

    The model is in evaluation mode during a pass and as it was before between passes.

    Attributes:
        padding: Columns before the first token of each row.
        cache: Keys and values; None without a cache, or once it is of no use.
    """

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        extent: Extent,
        *,
        use_cache: bool,
    ) -> None:
        """Note how the rows are aligned."""
        self._model, self._context, self._n_samples = model, extent.context, extent.n_samples
        width = max(map(len, prompts))
        self.padding = [width - len(prompt) for prompt in prompts]
        layers, window = model.config.n_layers, model.config.window
        self.cache = (
            KVCache.empty(layers, window=window, room=extent.longest) if use_cache else None
        )

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values; 0 without a cache, or once it is of no use."""
        return 0 if self.cache is None else self.cache.nbytes

    def prompt_logits(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "W V"]:
        """Read each prompt once and share what was read between its samples."""
        logits = self.logits(range(len(prompts)), prompts, [[]] * len(prompts))
        n = self._n_samples
        if n == 1:
            return logits
        self.padding = [padding for padding in self.padding for _ in range(n)]
        if self.cache is not None:
            self.cache.repeat(n)
        return logits.repeat_interleave(n, dim=0)

    def logits(
        self,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
    ) -> Float[Tensor, "W V"]:
        """Return the logits after the text of each of `rows`; other rows are filled up with 0."""
        assert not any(drafts), "a batch in columns cannot take in drafts"
        columns = self.padding[rows[0]] + len(texts[0])
        first = 0 if self._context is None else max(0, columns - self._context)
        if first > 0:
            self.cache = None  # its keys are turned to positions that no longer hold
        read = 0 if self.cache is None else self.cache.length
        fresh = self._columns(rows, texts, columns - max(first, read))
        with evaluating(self._model), torch.inference_mode():
            features = self._model.features(fresh, self.cache, self._ragged(first))
            return self._model.logits(features[:, -1])[list(rows)]

    def _columns(
        self, rows: Sequence[int], texts: Sequence[Sequence[int]], width: int
    ) -> Int[Tensor, "R C"]:
        """Return the last `width` columns."""
        filled = [[0] * width for _ in self.padding]
        for row, text in zip(rows, texts, strict=True):
            tail = text[-width:]
            filled[row][width - len(tail) :] = tail
        return torch.tensor(filled, device=self._model.embed.weight.device)

    def _ragged(self, first: int) -> Int[Tensor, " R"] | None:
        """Return the padding that is left behind column `first`, or None."""
        padding = [max(0, n - first) for n in self.padding]
        if not any(padding):
            return None
        return torch.tensor(padding, device=self._model.embed.weight.device)


@contextmanager
def evaluating(model: GPT) -> Iterator[None]:
    """Switch off the training mode of the modules that are in it, and back on afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
