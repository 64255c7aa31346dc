"""Reading rows of unequal length with the kernels, each row by itself.

Shapes: W logits wanted, V vocabulary.
"""

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from assay.decode.native_model import MAX_ENTRIES, NativeModel, TokenBatch
from assay.decode.options import Extent
from assay.decode.quantized import QuantizedModel
from assay.native.build import Kernels


@final
class NativeDecoder:
    """Reads what is new of each row, to the bit as if the row were alone; float32, on the CPU."""

    def __init__(
        self,
        kernels: Kernels,
        packed: QuantizedModel,
        n_prompts: int,
        extent: Extent,
    ) -> None:
        """Make room for the samples of every prompt."""
        window, n_rows = packed.model.config.window, extent.n_samples * n_prompts
        room = extent.longest if window is None else min(extent.longest, window - 1 + MAX_ENTRIES)
        self._context, self._n_samples = extent.context, extent.n_samples
        self._program = NativeModel(kernels, packed, n_rows=n_rows, room=room)
        self._n_held = [0] * n_rows  # tokens in the cache, those of the latest draft included

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values, taken at once for all tokens there may be."""
        return 0 if self._program.cache is None else self._program.cache.nbytes

    def prompt_logits(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "W V"]:
        """Read each prompt once and share what was read between its samples."""
        n = self._n_samples
        firsts = range(0, len(prompts) * n, n)
        logits = self.logits(firsts, prompts, [[]] * len(prompts))
        cache = self._program.cache
        for first in firsts if n > 1 else ():
            if cache is not None:
                cache[:, :, first + 1 : first + n] = cache[:, :, first : first + 1]
            self._n_held[first : first + n] = [self._n_held[first]] * n
        return logits.repeat_interleave(n, dim=0)

    def logits(
        self,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
    ) -> Float[Tensor, "W V"]:
        """Return, for each of `rows`, the logits after its text and after each token of its draft.

        A text must go on with as many tokens of its latest draft as came true and one more token.
        A text and its draft must fit into the context together, if there is a draft.
        """
        feed = TokenBatch()
        for row, text, draft in zip(rows, texts, drafts, strict=True):
            self._feed(feed, row, text, draft)
        return self._program.logits(feed)

    def _feed(self, feed: TokenBatch, row: int, text: Sequence[int], draft: Sequence[int]) -> None:
        if self._context is not None and len(text) > self._context:  # positions are counted anew
            feed.add(row, 0, text[-self._context :], n_wanted=1)
            self._n_held[row] = 0
            return
        known = min(self._n_held[row], len(text) - 1)
        feed.add(row, known, [*text[known:], *draft], n_wanted=1 + len(draft))
        self._n_held[row] = len(text) + len(draft)
