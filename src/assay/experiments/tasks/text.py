"""What models write: judged by others, or looked at position by position."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, final

import numpy as np
from pydantic import Field, PositiveInt

from assay.config import RunConfig
from assay.data.tokenizer import Tokenizer
from assay.experiments.tasks.task import Task, Values
from assay.generate import GenerateOptions, generate
from assay.measure.by_position import Stretch, by_position
from assay.measure.diversity import (
    distinct,
    loop_rate,
    repeated_ngrams,
    self_bleu,
    unique_ngrams,
    zipf_exponent,
)
from assay.measure.judged import model_bits, ngram_bits
from assay.measure.ngram import NGramModel
from assay.nn.model import GPT
from assay.runs.run import Run
from assay.sampling import SamplingConfig

_ORDER = 6  # of the model of counts: the best on its own validation text
_START = "\n"  # what every text follows, its own model's and a judge's alike


@final
class Written(Task):
    """Texts of one trained model under several samplings, judged by models of other text.

    Values: for sampling i, `si.NAME`; the same of people's text of equal length, `human.NAME`;
    `random_bits`, the bits of a character drawn from all that the writer knows.
    """

    kind: Literal["written"] = "written"
    writer: RunConfig
    """Whose texts they are."""
    judge: RunConfig
    """Of other text, another architecture and another seed; a model of counts joins it, fitted on
    the same text."""
    samplings: Annotated[tuple[SamplingConfig, ...], Field(strict=False)]
    """Each draws with the same random numbers."""
    n_samples: PositiveInt
    """Texts of each sampling."""
    length: PositiveInt
    """Tokens of each text."""
    seed: int
    """Of the draws, and of the choice of people's text."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """Writer and judge."""
        return (self.writer, self.judge)

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Write and judge."""
        model, tokenizer = runs[0].load()
        judges = _Judges.of(runs[1])
        people = self._people(runs[0], tokenizer)
        found = {"human": judges.figures(people), "random_bits": math.log2(tokenizer.vocab_size)}
        for place, sampling in enumerate(self.samplings):
            texts = self._write(model, tokenizer, sampling)
            found[f"s{place}"] = judges.figures(texts)
        return found

    def _write(self, model: GPT, tokenizer: Tokenizer, sampling: SamplingConfig) -> list[str]:
        options = GenerateOptions(
            max_new_tokens=self.length, n_samples=self.n_samples, seed=self.seed, reader="torch"
        )
        start = [int(token) for token in tokenizer.encode(_START)]
        run = generate(model, [start], sampling, options=options)
        for _ in run:
            pass
        return [tokenizer.decode(row) for row in run.generated]

    def _people(self, run: Run, tokenizer: Tokenizer) -> list[str]:
        """Return pieces of the writer's validation text that follow what its own texts follow."""
        ids = run.dataset().val.ids
        start = int(tokenizer.encode(_START)[0])
        places = np.flatnonzero(ids[: len(ids) - self.length] == start) + 1
        chosen = np.random.default_rng(self.seed).choice(places, self.n_samples)
        return [tokenizer.decode(ids[place : place + self.length]) for place in chosen]


@dataclass(frozen=True, slots=True)
class _Judges:
    model: GPT
    counts: NGramModel
    tokenizer: Tokenizer

    @classmethod
    def of(cls, run: Run) -> "_Judges":
        model, tokenizer = run.load()
        ids = run.dataset().train.ids
        counts = NGramModel.fit(ids, vocab_size=tokenizer.vocab_size, order=_ORDER)
        return cls(model, counts, tokenizer)

    def figures(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return everything there is to know of one set of texts."""
        rows = [ids.tolist() for ids in self.tokenizer.encode_batch(texts)]
        start, characters = int(self.tokenizer.encode(_START)[0]), sum(map(len, texts))
        words = [text.split() for text in texts]
        found = {
            "judge_bits": _per(model_bits(self.model, rows, start=start).sum(), characters),
            "ngram_bits": _per(ngram_bits(self.counts, rows, start=start).sum(), characters),
            "distinct_4": distinct(texts, 4),
            "unique_4": unique_ngrams(texts, 4),
            "distinct_1_words": distinct(words, 1),
            "distinct_2_words": distinct(words, 2),
            "distinct_3_words": distinct(words, 3),
            "self_bleu_4_words": self_bleu(words),
            "zipf_words": zipf_exponent(words),
            "rep_4": repeated_ngrams(texts, 4),
            "rep_4_words": repeated_ngrams(words, 4),
            "loop_rate": loop_rate(texts),
        }
        return _finite(found) | {"sample": texts[0]}


@final
class ByPosition(Task):
    """How far into a text the tokens of a model hang together; each text starts elsewhere.

    Values: for stretch i, `stretch_i.NAME`.
    """

    kind: Literal["by-position"] = "by-position"
    run: RunConfig
    """Whose model it is; its vocabulary known where it is not trained."""
    trained: bool
    """Whether it is trained first."""
    n_texts: PositiveInt
    """Each after one random token."""
    edges: Annotated[tuple[PositiveInt, ...], Field(strict=False)]
    """Of the stretches; the last is the length of a text, the first token included."""
    seed: int
    """Of first tokens, draws and shuffles."""

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """The run, if it is trained."""
        return (self.run,) if self.trained else ()

    def take(self, runs: tuple[Run, ...]) -> Values:
        """Write, and look at neighbours."""
        config = self.run
        model = runs[0].load()[0] if runs else GPT.create(config.model, seed=config.train.seed)
        rng = np.random.default_rng(self.seed)
        prompts = rng.integers(model.config.vocab, size=(self.n_texts, 1)).tolist()
        options = GenerateOptions(max_new_tokens=self.edges[-1] - 1, seed=self.seed, reader="torch")
        run = generate(model.eval(), prompts, SamplingConfig(), options=options)
        for _ in run:
            pass
        tokens = np.array([p + row for p, row in zip(prompts, run.generated, strict=True)])
        found = by_position(tokens, self.edges, seed=self.seed)
        return {f"stretch_{place}": _figures(stretch) for place, stretch in enumerate(found)}


def _figures(stretch: Stretch) -> dict[str, Any]:
    information, repetition = stretch.information_nats, stretch.repetition
    return {
        "first": stretch.first,
        "end": stretch.end,
        "information_excess_nats": information.excess,
        "repetition_excess": repetition.excess,
        "information_nats": asdict(information),
        "repetition": asdict(repetition),
    }


def _per(total: float, count: int) -> float:
    return float(total) / count if count else math.nan


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
