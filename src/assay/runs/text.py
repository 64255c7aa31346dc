"""Text from a model and a tokenizer, as it comes."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from assay.data.tokenizer import TextStream, Tokenizer
from assay.errors import ConfigError, DataError
from assay.generate import GenerateOptions, Generation, generate
from assay.nn.model import GPT
from assay.sampling import SamplingConfig


@dataclass(slots=True)
class _Row:
    """One text under way; holds back what might turn out to begin a stop string."""

    stream: TextStream
    stops: Sequence[str]
    held: str = ""
    over: bool = field(default=False)

    def push(self, token: int | None) -> str:
        """Return the text that is settled by `token`, or by the end where it is None."""
        if self.over:
            return ""
        self.held += self.stream.flush() if token is None else self.stream.push(token)
        cut = min((at for stop in self.stops if (at := self.held.find(stop)) >= 0), default=None)
        if cut is not None:
            self.over, settled, self.held = True, self.held[:cut], ""
            return settled
        keep = 0 if token is None else self._possible_stop()
        settled, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return settled

    def _possible_stop(self) -> int:
        """Return the length of the longest end of `held` that begins a stop string."""
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for length in range(min(longest, len(self.held)), 0, -1):
            if any(stop.startswith(self.held[-length:]) for stop in self.stops):
                return length
        return 0


def write_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    options: GenerateOptions,
    *,
    stops: Sequence[str] = (),
) -> Iterator[tuple[int, str]]:
    """Return an iterator of (row, text), text being given out as soon as it is settled.

    Row p · n_samples + s is sample s of prompt p.
    A character of several tokens comes out whole. A row ends at the tokenizer's end-of-text token,
    at a stop string (neither is given out) or after `max_new_tokens`. An empty prompt begins a
    document: after an end-of-text token if the tokenizer has one, else after a line break, or
    after token 0 where there are no line breaks. Ids that the model has over the tokenizer's, where
    its vocabulary was rounded up, give no text.
    """
    if "" in stops:
        raise ConfigError("stop: '' found; expected at least one character. Leave it out.")
    eot = tokenizer.eot_id
    if eot is not None and eot not in options.stop_tokens:
        options = options.model_copy(update={"stop_tokens": (*options.stop_tokens, eot)})
    generation = generate(model, [_start(tokenizer, p) for p in prompts], sampling, options=options)
    rows = [_Row(TextStream(tokenizer), stops) for _ in generation.generated]
    silent = {*options.stop_tokens, *range(tokenizer.vocab_size, model.config.vocab)}
    return _pieces(generation, rows, silent)


def _pieces(
    generation: Generation, rows: Sequence[_Row], silent: Set[int]
) -> Iterator[tuple[int, str]]:
    for step in generation:
        for index, token in enumerate(step):
            if token is None or token in silent:
                continue
            if text := rows[index].push(token):
                yield index, text
            if rows[index].over:
                generation.finish(index)
    for index, row in enumerate(rows):
        if text := row.push(None):
            yield index, text


def _start(tokenizer: Tokenizer, prompt: str) -> list[int]:
    if prompt:
        return [int(token) for token in tokenizer.encode(prompt)]
    if tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return [int(token) for token in tokenizer.encode("\n")]
    except DataError:  # characters of a text without line breaks
        return [0]
