"""Generate token ids, a step at a time.

    for step in (run := generate(model, prompts, sampling, options=options)):
        ...  # step[row] is the new token of that row, or None
    run.generated  # all of them

Shapes: R rows (`n_samples` for each prompt, side by side), V vocabulary, E draws of one pass.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.decode.decoder import open_reader
from assay.decode.options import GenerateOptions as GenerateOptions
from assay.decode.prompt_lookup import Lookup
from assay.decode.quantized import QuantizedModel as QuantizedModel
from assay.errors import ConfigError, DataError
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig, sample, uniforms


def generate(
    model: GPT | QuantizedModel,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    options: GenerateOptions,
) -> "Generation":
    """Check what is asked for and return the generation, not yet begun.

    Args:
        model: Where it is to be rounded for many generations, packed once.
        prompts: Lists of ids.
        sampling: How a token is drawn.
        options: How much is generated and how the model is read.

    Raises:
        ConfigError: If the model cannot roll or is packed otherwise, or a stop token is not in its
            vocabulary.
        DataError: If there is no prompt, an empty one, or one with an id outside the vocabulary.
    """
    packed = model if isinstance(model, QuantizedModel) else QuantizedModel(model, options.weights)
    _check_weights(packed, options)
    config = packed.model.config
    _check_window(config, options.window)
    _check_stop_tokens(options.stop_tokens, config.vocab)
    _check_prompts(prompts, config.vocab)
    return Generation(packed, prompts, sampling, options)


@final
class Generation:
    """An iterator over steps; each gives the new token of every row, None where a row has ended.

    Row `p * n_samples + s` is sample s of prompt p. A row ends with a stop token, after
    `max_new_tokens`, or by `finish`; when all have ended the iteration does. The model is left as
    it was, so a generation may be abandoned at any point. Training the model half way would leave
    old keys in the cache.

    Attributes:
        generated: The new tokens of each row so far.
        finished: Whether each row has ended early.
        n_passes: Passes through the model so far; fewer than steps where drafts came true.
    """

    def __init__(
        self,
        packed: QuantizedModel,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        options: GenerateOptions,
    ) -> None:
        n, max_seq_len = options.n_samples, packed.model.config.max_seq_len
        self._sampling, self._options, self._prompts = sampling, options, prompts
        self._context = None if options.window == "rolling" else max_seq_len
        self._reader = open_reader(packed, prompts, options)
        self._rows = [
            _Row(
                list(prompt),
                uniforms(options.seed, prompt=options.first_prompt + p, sample=s),
            )
            for p, prompt in enumerate(prompts)
            for s in range(n)
        ]
        self._n_steps = 0
        self.n_passes = 0
        self.generated: list[list[int]] = [[] for _ in self._rows]
        self.finished = [False] * len(self._rows)

    def __iter__(self) -> "Generation":
        return self

    def __next__(self) -> list[int | None]:
        if self._n_steps == self._options.max_new_tokens or all(self.finished):
            raise StopIteration
        self._read_and_draw()
        step = [
            None if over else row.pop() for row, over in zip(self._rows, self.finished, strict=True)
        ]
        self._append(step)
        return step

    def finish(self, row: int) -> None:
        """End `row` after its latest token; for stop strings, which only the caller can see."""
        self.finished[row] = True

    @property
    def logits(self) -> Float[Tensor, "R V"] | None:
        """What the latest token of each row was drawn from, before `sampling`; None at first."""
        latest = [row.logits for row in self._rows if row.logits is not None]
        return torch.stack(latest) if latest else None

    @property
    def cache_bytes(self) -> int:
        """Memory held by keys and values; 0 without a cache, or once it is of no use."""
        return self._reader.cache_bytes

    def _read_and_draw(self) -> None:
        """See to it that every row that goes on has a token drawn."""
        numbers = [
            number
            for number, over in enumerate(self.finished)
            if not over and not self._rows[number].drawn
        ]
        if not numbers:
            return
        self.n_passes += 1
        rows = [self._rows[number] for number in numbers]
        drafts = [self._draft(row) for row in rows]
        if self._n_steps == 0:
            logits = self._reader.prompt_logits(self._prompts)[numbers]
        else:
            logits = self._reader.logits(numbers, [row.text for row in rows], drafts)
        tokens = self._sample(logits, rows, drafts)
        done = 0
        for row, draft in zip(rows, drafts, strict=True):
            row.accept(tokens[done:], logits[done:], draft)
            done += 1 + len(draft)

    def _draft(self, row: "_Row") -> list[int]:
        """Return what might follow, no more than the context and the text asked for hold."""
        if not self._options.lookup or self._n_steps == 0:
            return []
        limit = min(self._options.lookup, self._options.max_new_tokens - self._n_steps - 1)
        if self._context is not None:
            limit = min(limit, self._context - len(row.text))
        return row.lookup.draft(row.text, limit)

    def _sample(
        self, logits: Float[Tensor, "E V"], rows: Sequence["_Row"], drafts: Sequence[Sequence[int]]
    ) -> list[int]:
        """Draw the token after each row's text and after each token of its draft."""
        uniform = [u for row, draft in zip(rows, drafts, strict=True) for u in row.ahead(draft)]
        history = None
        if self._sampling.repetition_penalty != 1:
            history = _histories(rows, drafts)
        # on the CPU, where float64 is to be had whatever the model runs on
        with torch.inference_mode():
            numbers = torch.tensor(uniform, dtype=torch.float64)
            drawn: list[int] = sample(logits.cpu(), self._sampling, numbers, history).tolist()
        return drawn

    def _append(self, step: list[int | None]) -> None:
        for number, token in enumerate(step):
            if token is not None:
                self.generated[number].append(token)
                self.finished[number] = token in self._options.stop_tokens
        self._n_steps += 1


@final
class _Row:
    """One text under way, with the tokens that are drawn already but not given out."""

    def __init__(self, text: list[int], numbers: Iterator[float]) -> None:
        self.text = text
        self.lookup = Lookup()
        self.drawn: deque[tuple[int, Tensor]] = deque()
        self.logits: Tensor | None = None
        self._numbers, self._ahead = numbers, list[float]()

    def ahead(self, draft: Sequence[int]) -> list[float]:
        """Return the numbers of the next steps: one, and one for each token of a draft."""
        self._ahead += islice(self._numbers, max(0, 1 + len(draft) - len(self._ahead)))
        return self._ahead[: 1 + len(draft)]

    def accept(self, tokens: Sequence[int], logits: Tensor, draft: Sequence[int]) -> None:
        """Take in the tokens drawn from logits whose draft came true, and the one after them."""
        right = 0
        while right < len(draft) and tokens[right] == draft[right]:
            right += 1
        self.drawn += zip(tokens[: right + 1], logits[: right + 1], strict=True)
        del self._ahead[: right + 1]

    def pop(self) -> int:
        """Return the next token, now part of the text."""
        token, self.logits = self.drawn.popleft()
        self.text.append(token)
        return token


def _histories(rows: Sequence[_Row], drafts: Sequence[Sequence[int]]) -> Int[Tensor, "E L"]:
    """Return the tokens before each draw, filled up with -1."""
    texts = [
        torch.tensor([*row.text, *draft[:n]])
        for row, draft in zip(rows, drafts, strict=True)
        for n in range(len(draft) + 1)
    ]
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-1)


def _check_weights(packed: QuantizedModel, options: GenerateOptions) -> None:
    if options.weights not in (None, packed.weights):
        raise ConfigError(
            f"generate.weights: {options.weights} found for a model packed as "
            f"{packed.weights or 'it is'}; expected null or the same. Pack it anew."
        )


def _check_window(config: ModelConfig, window: str) -> None:
    if window == "recompute":
        return
    if config.position.bounded:
        raise ConfigError(
            "generate.window: rolling found for a model with learned positions, whose table ends; "
            "expected any other position. Use window=recompute."
        )
    if config.mixer.mixes and config.window is None:
        raise ConfigError(
            "generate.window: rolling found for a model with full attention; expected one trained "
            "with model.mixer.window set, or without a mixer. Use window=recompute."
        )


def _check_stop_tokens(stop_tokens: Sequence[int], vocab_size: int) -> None:
    for token in stop_tokens:
        if token >= vocab_size:
            raise ConfigError(
                f"generate.stop_tokens: {token} found; expected ids under {vocab_size}, the "
                "model's vocabulary. It can never be drawn: leave it out."
            )


def _check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
    if not prompts:
        raise DataError("prompts: none found; expected at least one. Pass a list of lists of ids.")
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise DataError(
                f"prompts[{index}]: no token found; expected at least one to start from. Pass a "
                "start token, such as the tokenizer's end of text."
            )
        for place, token in enumerate(prompt):
            if not 0 <= token < vocab_size:
                raise DataError(
                    f"prompts[{index}][{place}]: token {token} found; expected 0 to "
                    f"{vocab_size - 1}. Encode the prompt with the model's own tokenizer."
                )
