"""Passes of the kernels over a model, with a cache.

Shapes: E entries (one token of one row at one position), W entries whose logits are wanted, V
vocabulary, L layers, R rows, G key and value heads, S slots of a row, K width of one head.
"""

from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from assay.decode.quantized import QuantizedModel
from assay.native import abi
from assay.native.build import Kernels
from assay.nn.model import GPT

MAX_ENTRIES = 256
"""Entries of one pass; more would only take more memory."""

_ONE_THREAD = 1 << 18
"""Bytes of weights under which a second thread costs more than it brings."""


@final
@dataclass(slots=True)
class TokenBatch:
    """What one pass reads, an entry each: the token, its row, its position, if its logits count."""

    tokens: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)

    def add(self, row: int, first: int, tokens: Sequence[int], *, n_wanted: int) -> None:
        """Take in `tokens` from position `first` on; the logits of the last `n_wanted` count."""
        n = len(tokens)
        assert 0 <= n_wanted <= n, "logits are of tokens that are read"
        self.tokens += tokens
        self.rows += [row] * n
        self.positions += range(first, first + n)
        self.wanted += [False] * (n - n_wanted) + [True] * n_wanted

    def part(self, first: int) -> "TokenBatch":
        """Return the entries of one pass."""
        cut = slice(first, first + MAX_ENTRIES)
        return TokenBatch(self.tokens[cut], self.rows[cut], self.positions[cut], self.wanted[cut])


@final
class NativeModel:
    """A model as the kernels read it, and a cache of `n_rows` rows of `room` slots.

    The token at position p of a row is kept in slot p modulo `room`. With a window, `room` may be
    less than a text is long, but no pass may overwrite what one of its entries still sees. Logits
    depend on the row alone, to the bit: not on the other rows, nor on how a text is cut into
    passes, nor on the number of threads.

    Attributes:
        cache: Keys (0) and values (1) of each layer; None without a mixer.
        weight_bytes: What a step reads of the weights.
    """

    def __init__(self, kernels: Kernels, packed: QuantizedModel, *, n_rows: int, room: int) -> None:
        assert kernels.library is not None
        self._library, model = kernels.library, packed.model
        self._position, self._vocab = model.position, model.config.vocab
        self._described = described = packed.described(kernels.library)
        self._struct = abi.Program.from_buffer_copy(described.program)
        self._struct.room = room
        self.weight_bytes = described.weight_bytes
        self.cache = _cache(model, n_rows, room)
        self._layers = type(described.layers).from_buffer_copy(described.layers)
        self._struct.layers = self._layers
        for index, layer in enumerate(self._layers):
            if self.cache is not None:
                layer.keys, layer.values = (half.data_ptr() for half in self.cache[index])
        self._angles: tuple[Tensor, Tensor] | None = None
        self._reached = 0

    def logits(self, feed: TokenBatch) -> Float[Tensor, "W V"]:
        """Read all entries, in passes of at most `MAX_ENTRIES`; return the logits that count."""
        logits = torch.empty(sum(feed.wanted), self._vocab)
        length = max(feed.positions) + 1
        held = self.cache is None or self._struct.window > 0 or length <= self._struct.room
        assert held, "a row without a window fits into its slots"
        self._reach(length)
        done = 0
        for first in range(0, len(feed.tokens), MAX_ENTRIES):
            part = feed.part(first)
            self._pass(part, logits[done:])
            done += sum(part.wanted)
        return logits

    def _pass(self, feed: TokenBatch, logits: Tensor) -> None:
        wanted = [index for index, counts in enumerate(feed.wanted) if counts]
        ints = torch.tensor([feed.tokens, feed.rows, feed.positions])
        tokens, rows, positions = ints
        x = self._position.embed(self._described.embed.rows(tokens)[None], positions[None])
        kept = (rows.int(), positions.int(), x.contiguous(), torch.tensor(wanted).int(), logits)
        entries = abi.Entries(*(t.data_ptr() for t in kept), len(feed.tokens), len(wanted))
        threads = torch.get_num_threads() if self.weight_bytes > _ONE_THREAD else 1
        self._struct.n_threads = threads
        self._library.assay_pass(byref(self._struct), byref(entries))

    def _reach(self, length: int) -> None:
        """Have the angles of positions under `length` at hand."""
        if length <= self._reached:
            return
        self._reached = max(length, 2 * self._reached)
        positions = torch.arange(self._reached)[None]
        rotation = self._position.rotation(positions, torch.float32)
        if rotation is not None:
            cos, sin = rotation.cos.flatten(0, 2), rotation.sin.flatten(0, 2)
            self._angles = cos.contiguous(), sin.contiguous()
            self._struct.cos, self._struct.sin = (angle.data_ptr() for angle in self._angles)
            self._struct.n_pairs = cos.shape[1]


def _cache(model: GPT, n_rows: int, room: int) -> Float[Tensor, "L 2 R G S K"] | None:
    config = model.config
    if not config.n_heads:
        return None
    return torch.empty(config.n_layers, 2, n_rows, config.n_kv_heads, room, config.d_head)
