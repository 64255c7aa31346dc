"""How fast this machine is, and how near training and decoding come to its limits.

A machine has two limits: the rate at which it multiplies large matrices, which bounds training, and
the rate at which it reads memory, which bounds the decoding of few rows, since every token reads
every weight. Speeds are medians; limits are the best seen.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from assay.config import RunConfig
from assay.count import Count, count_or_none
from assay.data.config import DataConfig
from assay.engine.autotune import tune
from assay.engine.device import matmul_rate, resolve_plan
from assay.errors import ConfigError
from assay.generate import GenerateOptions, generate
from assay.nn.model import GPT
from assay.sampling import SamplingConfig
from assay.schema import override
from assay.train.loop import train
from assay.train.plan import ExecutionPlan

_READ_BYTES = {"cpu": 1 << 29, "cuda": 1 << 31}  # beyond any cache
_READ_S = 0.5
_BYTE_VOCABULARY = 257
_PROMPT_TOKENS, _NEW_TOKENS = 128, 64
_ENDLESS = 1 << 30  # steps


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device can do at best, in operations and bytes per second."""

    fp32_flops_per_s: float
    bf16_flops_per_s: float
    read_bytes_per_s: float

    @property
    def flops_per_s(self) -> float:
        """In the faster precision."""
        return max(self.fp32_flops_per_s, self.bf16_flops_per_s)


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """How fast a run would train.

    Attributes:
        way: Precision, attention kernel, and whether layers are compiled.
        steps: Timed.
        step_s: Of the median step.
        tokens_per_s: Targets over the time of the median step.
        share: FLOPs that the causal mask leaves, forward and backward, over those of a large
            product in that time, in the faster precision.
    """

    way: str
    steps: int
    step_s: float
    tokens_per_s: float
    share: float | None


@dataclass(frozen=True, slots=True)
class DecodingSpeed:
    """How fast a model writes.

    Attributes:
        rows: Texts side by side.
        prompt_tokens: Of each.
        first_token_s: From the call to the first token.
        tokens_per_s: Of all rows together, after the first token.
        share: Bytes of the weights and of the cache that a step must read, over what the memory
            could deliver in that time.
    """

    rows: int
    prompt_tokens: int
    first_token_s: float
    tokens_per_s: float
    share: float | None


def with_vocabulary(config: RunConfig) -> RunConfig:
    """Return `config` with its vocabulary known, which no text is read for.

    Raises:
        ConfigError: If only a text could tell it.
    """
    if config.model.vocab_size is not None:
        return config
    return override(config, {"model.vocab_size": _vocabulary(config.data)})


def _vocabulary(data: DataConfig) -> int:
    if data.tokenizer.kind == "bpe":
        return data.tokenizer.vocab_size
    if data.tokenizer.kind == "byte":
        return _BYTE_VOCABULARY
    raise ConfigError(
        f"model.vocab_size: null found; data.tokenizer={data.tokenizer.kind} tells it only where a "
        "text or a file is read, and none is read here. Set it, such as model.vocab_size=65."
    )


def measure_limits(device: torch.device) -> Limits:
    """Measure both limits of a device; about two seconds."""
    return Limits(
        matmul_rate(device, autocast=False), matmul_rate(device, autocast=True), read_rate(device)
    )


def read_rate(device: torch.device) -> float:
    """Measure the bytes per second at which a sum reads memory; about a second."""
    n_bytes = _READ_BYTES.get(device.type, _READ_BYTES["cpu"])
    values = torch.ones(n_bytes // 4, device=device)
    best, ended = float("inf"), time.perf_counter() + _READ_S
    while time.perf_counter() < ended or best == float("inf"):
        best = min(best, _seconds_of(lambda: values.sum().item()))
    return n_bytes / best


def measure_training(config: RunConfig, limits: Limits, *, seconds: float) -> TrainingSpeed:
    """Train on random tokens as `assay train` would, its choice of the fastest way included.

    Args:
        config: Of the run, its vocabulary known.
        limits: Of its device.
        seconds: To spend on steps, after that choice and a step to warm up; one is timed at least.
    """
    plan, _ = tune(config, resolve_plan(config.train))
    elapsed = list(_step_seconds(config, plan, seconds))
    step_s = statistics.median(elapsed)
    sequences = config.train.batch_size
    counted = count_or_none(config.model, seq_len=config.seq_len)
    return TrainingSpeed(
        way=_words(plan),
        steps=len(elapsed),
        step_s=step_s,
        tokens_per_s=sequences * config.seq_len / step_s,
        share=None
        if counted is None
        else 3 * counted.causal_forward_flops * sequences / step_s / limits.flops_per_s,
    )


def _step_seconds(config: RunConfig, plan: ExecutionPlan, seconds: float) -> Iterator[float]:
    """Yield the time of each step after the first, until `seconds` are spent."""
    model = GPT.create(config.model, device=plan.device)
    plan.prepare(model)
    plan = replace(plan, config=plan.config.model_copy(update={"steps": _ENDLESS}))
    batch = _random_tokens(config.model.vocab, config.train.batch_size, config.seq_len + 1)
    reports = train(model, lambda step: batch, config.train.optimizer.build(model), plan)
    next(reports)
    end = time.perf_counter() + seconds
    for report in reports:
        yield report.elapsed_s
        if time.perf_counter() > end:
            return


def _words(plan: ExecutionPlan) -> str:
    precision = "bf16" if plan.autocast else "fp32"
    if plan.native:
        return f"C++ kernels, {precision}"
    return f"{'compiled' if plan.compiled else 'eager'} {precision}, attention {plan.attention}"


def measure_decoding(model: GPT, limits: Limits, *, rows: int, seconds: float) -> DecodingSpeed:
    """Write texts after random prompts until `seconds` are spent; the first text warms up."""
    n_prompt, n_new = _lengths(model.config.max_seq_len)
    prompts = _random_tokens(model.config.vocab, rows, n_prompt).tolist()
    options = GenerateOptions(max_new_tokens=1 + n_new)
    _text_seconds(model, prompts, options)
    texts: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while not texts or time.perf_counter() < end:
        texts.append(_text_seconds(model, prompts, options))
    steps_per_s = statistics.median(n_new / rest_s for _, rest_s in texts)
    seen = min(n_prompt + (1 + n_new) // 2, model.config.max_seq_len)  # half way, on average
    counted = count_or_none(model.config, seq_len=seen)
    return DecodingSpeed(
        rows=rows,
        prompt_tokens=n_prompt,
        first_token_s=statistics.median(first_s for first_s, _ in texts),
        tokens_per_s=rows * steps_per_s,
        share=None
        if counted is None
        else _step_bytes(counted, rows) * steps_per_s / limits.read_bytes_per_s,
    )


def _lengths(max_seq_len: int) -> tuple[int, int]:
    """Return the tokens of the prompt and those after the first; together a context, or less."""
    n_prompt = min(_PROMPT_TOKENS, max(1, max_seq_len // 2))
    return n_prompt, min(_NEW_TOKENS, max(1, max_seq_len - n_prompt))


def _random_tokens(vocab_size: int, rows: int, width: int) -> Int[Tensor, "B T"]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (rows, width), generator=draw)


def _text_seconds(
    model: GPT, prompts: list[list[int]], options: GenerateOptions
) -> tuple[float, float]:
    """Return the seconds to the first token and those of all others."""
    began = time.perf_counter()
    steps = generate(model, prompts, SamplingConfig(), options=options)
    next(steps)
    first = time.perf_counter()
    for _ in steps:
        pass
    return first - began, time.perf_counter() - first


def _step_bytes(counted: Count, rows: int) -> int:
    """Return what a step reads: every weight but rows of tables, and the cache of each row."""
    tables = sum(part.parameters for part in counted.parts if part.name == "position")
    embed = sum(part.parameters for part in counted.parts if part.name == "embed")
    untied = any(part.name == "unembed" and part.parameters for part in counted.parts)
    looked_up = tables + (embed if untied else 0)
    return counted.weight_bytes_fp32 - 4 * looked_up + rows * counted.cache_bytes_fp32


def _seconds_of(work: Callable[[], object]) -> float:
    """Return the wall-clock time of work that waits for its result."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
