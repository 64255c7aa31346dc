"""Generate token ids, a step at a time.

    for step in (run := generate(model, prompts, sampling, options=options)):
        ...  # step[row] is the new token of that row, or None
    run.generated  # all of them

Shapes: R rows (`n_samples` for each prompt, side by side), C columns (tokens of the longest row),
V vocabulary. Rows are aligned on the right; shorter ones start with padding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt
from torch import Tensor

from assay.errors import ConfigError, DataError
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig, sample, uniforms
from assay.schema import Config

_PADDING = -1

Word = Annotated[int, Field(ge=0, lt=2**64)]


class GenerateOptions(Config):
    """How much is generated, from what seed, and how far back the model looks."""

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


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    options: GenerateOptions,
) -> "Generation":
    """Check what is asked for and return the generation, not yet begun.

    Raises:
        ConfigError: If the model cannot roll, or a stop token is not in its vocabulary.
        DataError: If there is no prompt, an empty one, or one with an id outside the vocabulary.
    """
    _check_window(model.config, options.window)
    _check_stop_tokens(options.stop_tokens, model.config.vocab)
    _check_prompts(prompts, model.config.vocab)
    return Generation(model, prompts, sampling, options)


@final
class Generation:
    """An iterator over steps; each gives the new token of every row, None where a row has ended.

    Row `p * n_samples + s` is sample s of prompt p. A row ends with a stop token, after
    `max_new_tokens`, or by `finish`; when all have ended the iteration does. The model is in
    evaluation mode during a step and as it was before between steps, so a generation may be
    abandoned at any point. Training the model half way would leave old keys in the cache.

    Attributes:
        generated: The new tokens of each row so far.
        finished: Whether each row has ended early.
        logits: What the latest token of each row was drawn from, before `sampling`; None at first.
    """

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        options: GenerateOptions,
    ) -> None:
        n = options.n_samples
        self._model, self._sampling, self._options = model, sampling, options
        self._tokens, self._padding = _align([p for p in prompts for _ in range(n)], model)
        self._cache = model.new_cache() if options.use_cache else None
        self._numbers = [
            uniforms(options.seed, prompt=options.first_prompt + p, sample=s)
            for p in range(len(prompts))
            for s in range(n)
        ]
        self._n_steps = 0
        self.generated: list[list[int]] = [[] for _ in self._numbers]
        self.finished = [False] * len(self._numbers)
        self.logits: Float[Tensor, "R V"] | None = None

    def __iter__(self) -> "Generation":
        return self

    def __next__(self) -> list[int | None]:
        if self._n_steps == self._options.max_new_tokens or all(self.finished):
            raise StopIteration
        with _evaluating(self._model), torch.inference_mode():
            self.logits = self._next_logits()
            drawn = self._draw(self.logits)
        step = [None if over else int(t) for t, over in zip(drawn, self.finished, strict=True)]
        self._append(step)
        return step

    def finish(self, row: int) -> None:
        """End `row` after its latest token; for stop strings, which only the caller can see."""
        self.finished[row] = True

    @property
    def cache_bytes(self) -> int:
        """Memory held by keys and values; 0 without a cache, or once it is of no use."""
        return 0 if self._cache is None else self._cache.nbytes

    def _next_logits(self) -> Float[Tensor, "R V"]:
        """Run the model over the columns it has not read; the last one alone becomes logits."""
        first = self._first_column()
        if first > 0:
            self._cache = None  # its keys are turned to positions that no longer hold
        read = 0 if self._cache is None else self._cache.length
        fresh = self._tokens[:, max(first, read) :].clamp_min(0)
        padding = (self._padding - first).clamp_min(0)
        ragged = padding if bool(padding.any()) else None
        return self._model.logits(self._model.features(fresh, self._cache, ragged)[:, -1])

    def _first_column(self) -> int:
        """Return the first column that the model may look at."""
        if self._options.window == "rolling":
            return 0
        return max(0, self._tokens.shape[1] - self._model.config.max_seq_len)

    def _draw(self, logits: Float[Tensor, "R V"]) -> list[int]:
        uniform = torch.tensor([next(numbers) for numbers in self._numbers], dtype=torch.float64)
        # on the CPU, where float64 is to be had whatever the model runs on
        return sample(logits.cpu(), self._sampling, uniform, self._tokens.cpu()).tolist()

    def _append(self, step: list[int | None]) -> None:
        """Take in a step; an ended row is filled up, since columns are shared."""
        for row, token in enumerate(step):
            if token is not None:
                self.generated[row].append(token)
                self.finished[row] = token in self._options.stop_tokens
        column = [_PADDING if token is None else token for token in step]
        self._tokens = torch.cat((self._tokens, self._tokens.new_tensor(column)[:, None]), dim=1)
        self._n_steps += 1


@contextmanager
def _evaluating(model: GPT) -> Iterator[None]:
    """Switch off the training mode of the modules that are in it, and back on afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _align(
    rows: Sequence[Sequence[int]], model: GPT
) -> tuple[Int[Tensor, "R C"], Int[Tensor, " R"]]:
    """Return `rows` padded at the start to one length, and by how much each is."""
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    filled = [[_PADDING] * n + list(row) for n, row in zip(padding, rows, strict=True)]
    device = model.embed.weight.device
    return torch.tensor(filled, device=device), torch.tensor(padding, device=device)


def _check_window(config: ModelConfig, window: str) -> None:
    if window == "recompute":
        return
    if config.position.kind == "learned":
        raise ConfigError(
            "generate.window: rolling found for a model with learned positions, whose table ends; "
            "expected any other position. Use window=recompute."
        )
    if config.mixer.kind != "none" and config.mixer.window is None:
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
