"""Reading with steps of fixed shape, on a CUDA device each a graph: recorded once, then replayed.

What a step reads and writes stays where it is in memory (see `assay/cuda_graph.py`), the column of
the new tokens is a number in that memory, and attention runs over the first 64, 128, 256, ...
columns, those not yet written hidden. Each such width is one recording.

Shapes: R rows, P either 1 or R, H query heads, G key and value heads, S slots (one a column), W of
them looked at, K width of one head, V vocabulary.
"""

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assay.cuda_graph import CudaGraph
from assay.decode.batched_decoder import BatchedDecoder, evaluating
from assay.decode.options import Extent
from assay.nn.attention import Context
from assay.nn.attention_mask import MaskSpec
from assay.nn.cache import KVCache, LayerCache
from assay.nn.model import GPT

_LEAST_WIDTH = 64


@final
class CudaGraphDecoder:
    """Reads prompts as `BatchedDecoder` does, and then one new column of all rows at a time.

    Past the context, where positions are counted anew, `BatchedDecoder` goes on.
    """

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], extent: Extent) -> None:
        self._model, self._extent = model, extent
        self._aligned = BatchedDecoder(model, prompts, extent, use_cache=True)
        self._steps: _Steps | None = None

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values."""
        return self._aligned.cache_bytes if self._steps is None else self._steps.cache_bytes

    def prompt_logits(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "W V"]:
        """Read each prompt once and share what was read between its samples."""
        return self._aligned.prompt_logits(prompts)

    def logits(
        self,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
    ) -> Float[Tensor, "W V"]:
        """Return the logits after the text of each of `rows`; other rows are filled up with 0."""
        assert not any(drafts), "a batch in columns cannot take in drafts"
        padding = self._aligned.padding
        column = padding[rows[0]] + len(texts[0]) - 1
        if column >= self._extent.longest:
            self._steps = None
            return self._aligned.logits(rows, texts, drafts)
        if self._steps is None:
            held, self._aligned.cache = self._aligned.cache, None
            assert held is not None, "a prompt is read before what follows it"
            self._steps = _Steps(self._model, held, padding, self._extent.longest)
        tokens = [0] * len(padding)
        for row, text in zip(rows, texts, strict=True):
            tokens[row] = text[-1]
        return self._steps.logits(tokens, column)[list(rows)]


class _FixedLayerCache(LayerCache):
    """Keys and values of one layer in memory that stays where it is.

    Attributes:
        width: Slots that queries look at.
    """

    def __init__(self, held: LayerCache, length: int, room: int, column: Int[Tensor, " 1"]) -> None:
        """Take over what is held of the latest columns before `length`."""
        super().__init__(window=None)
        self.width, self._column = 0, column
        if (kept := held.held) is not None:
            self._k, self._v = (_in_slots(half, length, room) for half in kept)

    def extend(
        self, k: Float[Tensor, "R G 1 K"], v: Float[Tensor, "R G 1 K"]
    ) -> tuple[Float[Tensor, "R G W K"], Float[Tensor, "R G W K"]]:
        """Write new keys and values to their slot; return those looked at."""
        assert self._k is not None
        assert self._v is not None
        self._k.index_copy_(2, self._column, k)
        self._v.index_copy_(2, self._column, v)
        return self._k[:, :, : self.width], self._v[:, :, : self.width]


def _in_slots(half: Float[Tensor, "R G n K"], length: int, room: int) -> Float[Tensor, "R G S K"]:
    """Return zeros but for the slots of the columns held: what is hidden must still be a number."""
    slots = half.new_zeros(*half.shape[:2], room, half.shape[3])
    slots[:, :, length - half.shape[2] : length] = half
    return slots


@final
class _Steps:
    """Steps of one batch, recorded for each width."""

    def __init__(self, model: GPT, cache: KVCache, padding: Sequence[int], room: int) -> None:
        device = model.embed.weight.device
        self._model, self._room, self._device = model, room, device
        self._tokens = torch.zeros(len(padding), 1, dtype=torch.int64, device=device)
        self._column = torch.zeros(1, dtype=torch.int64, device=device)
        self._padding = torch.tensor(padding, device=device)[:, None] if any(padding) else None
        with torch.inference_mode():
            self._layers = [
                _FixedLayerCache(layer, cache.length, room, self._column) for layer in cache.layers
            ]
        self._recorded: dict[int, CudaGraph[Tensor]] = {}

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values."""
        return sum(layer.nbytes for layer in self._layers)

    def logits(self, tokens: Sequence[int], column: int) -> Float[Tensor, "R V"]:
        """Read a token of each row; the next call writes where the result is."""
        width = min(self._room, max(_LEAST_WIDTH, 1 << column.bit_length()))
        with evaluating(self._model), torch.inference_mode():
            self._tokens.copy_(torch.tensor(tokens)[:, None])
            self._column.fill_(column)
            if width not in self._recorded:
                self._recorded[width] = CudaGraph(partial(self._step, width), self._device)
            return self._recorded[width]()

    def _step(self, width: int) -> Float[Tensor, "R V"]:
        model, column = self._model, self._column
        for layer in self._layers:
            layer.width = width
        positions = column[None] if self._padding is None else column - self._padding
        x = model.embedded(self._tokens, positions)
        wide = torch.promote_types(x.dtype, torch.float32)
        rotation = model.position.rotation(positions, wide)
        context = Context(
            rotation, MaskSpec(n_queries=1, n_keys=width), mask=self._mask(width, wide)
        )
        return model.logits(model.through_blocks(x, context, self._layers)[:, -1])

    def _mask(
        self, width: int, dtype: torch.dtype
    ) -> Float[Tensor, "P H 1 W"] | Bool[Tensor, "P 1 1 W"]:
        """Return what `MaskSpec` draws, for a column that is known to the device alone."""
        keys, window = torch.arange(width, device=self._device), self._model.config.window
        distance = (self._column - keys)[None]
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        if self._padding is not None:
            seen = seen & (keys >= self._padding)
        seen = seen[:, None, None]
        bias = self._model.position.score_bias(distance[0].clamp_min(0), dtype)
        if bias is None:
            return seen
        return bias[None, :, None].masked_fill(~seen, -torch.inf)
