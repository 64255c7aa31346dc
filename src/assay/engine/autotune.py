"""The fastest way to take a step here, found by timing; kept, so that the same run is the same.

A way is a precision and who computes with it: PyTorch, with one attention kernel or another and
layers compiled or not, or the C++ kernels. Which is fastest depends
on the processor more than on the model: bfloat16 is four times faster than float32 on one and half
as fast on another. What the user fixed stays fixed; what was left to `auto` is timed on the model
and batch of the run, if the run is long enough to earn it back, and settled by rule if not.

A way changes the last bits of a run. So that a run repeated on one machine has the same bits, the
choice is remembered in the cache folder, and a run that goes on takes the one it began with.
"""

import hashlib
import itertools
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter

from assay.config import RunConfig
from assay.count import built_parameters, count_or_none
from assay.data.cache import cache_folder
from assay.disk import read_bytes
from assay.engine.device import check_backend, describe_machine, known_matmul_rate, matmul_rate
from assay.errors import DivergedError
from assay.nn.attention import Kernel
from assay.nn.model import GPT
from assay.train.loop import train
from assay.train.native_backend import multiplies_bf16, unsupported_reason
from assay.train.plan import ExecutionPlan

_MOST_BYTES = 1 << 16  # of a file of trials, each of which takes 200
_TIMED_STEPS = 3  # after one to warm up
_MARGIN = 0.95  # a way less simple is taken only if its steps take less than this share of the time
_ENOUGH_S = 4.0  # of timed steps, however few: so long a step varies little
_HOPELESS = 1.5  # a step of so many times the best one's time ends a trial
_WORTH_TIMING_S = 10.0  # runs under this are not timed at all
_WORTH_COMPILING_S = 400.0  # 5 to 20 s of compiling, before it is known to pay
_MEASURED = ("x86_64", "AMD64")  # where the C++ kernels were never slower than PyTorch in float32


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way, timed.

    Attributes:
        precision: fp32 or bf16.
        attention: The kernel.
        compiled: Whether layers were compiled.
        native: Whether the C++ kernels took the step; the two before are without meaning then.
        step_s: Seconds of the fastest step; None if it could not be run.
        failed: Why it could not, in a line.
    """

    precision: Literal["fp32", "bf16"]
    attention: Kernel
    compiled: bool
    native: bool
    step_s: float | None
    failed: str = ""


def tune(
    config: RunConfig, plan: ExecutionPlan, cache: Path | None = None
) -> tuple[ExecutionPlan, list[Candidate]]:
    """Return `plan` with the fastest way found, and what was timed (nothing for a short run).

    Args:
        config: Of the run, its vocabulary known.
        plan: As `settle` returns it.
        cache: Folder of the choices made before; None stands for the user's.

    Raises:
        ConfigError: If the config asks for the C++ kernels and they cannot be used.
    """
    check_backend(config, plan)
    if not _open_fields(plan) or (expected_s := _expected_s(config, plan)) < _WORTH_TIMING_S:
        return default_plan(config, plan), []
    compiling = "compiled" in _open_fields(plan) and expected_s > _WORTH_COMPILING_S
    memory = cache_folder(cache) / "tuning" / f"{_key(config, plan, compiling=compiling)}.json"
    kept = _recall(memory)
    if kept is None:
        kept = _time_all(config, plan, compiling=compiling)
        _remember(memory, kept)
    return _with_way(plan, _best(kept)), kept


def default_plan(config: RunConfig, plan: ExecutionPlan) -> ExecutionPlan:
    """Return `plan` as a run that is too short to be timed takes it."""
    if platform.machine() not in _MEASURED:
        return plan
    return next(_native_ways(config, plan, [plan.autocast]), plan)


def plan_from_manifest(plan: ExecutionPlan, machine: Mapping[str, Any]) -> ExecutionPlan:
    """Return `plan` with what was left to `auto` as the manifest of a run says it was settled."""
    way = {
        "autocast": machine.get("precision", "fp32") == "bf16",
        "attention": machine.get("attention", "fused"),
        "compiled": machine.get("compiled", False),
        "native": machine.get("backend", "torch") == "native",
    }
    return replace(plan, **{field: way[field] for field in _open_fields(plan)})


def _open_fields(plan: ExecutionPlan) -> set[str]:
    """Return the fields of a plan that the config left to `auto`."""
    asked = plan.config
    settings = {
        "autocast": asked.precision,
        "attention": asked.attention,
        "compiled": asked.compile,
        "native": asked.backend,
    }
    if asked.backend == "native":  # two of them are how PyTorch takes a step
        del settings["attention"], settings["compiled"]
    elif asked.attention != "auto" or asked.compile == "on" or asked.recompute:
        del settings["native"]
    return {field for field, setting in settings.items() if setting == "auto"}


def _expected_s(config: RunConfig, plan: ExecutionPlan) -> float:
    """Return the seconds of a run if all its FLOPs went at the rate of a large product."""
    counted = count_or_none(config.model, seq_len=config.seq_len)
    if counted is None:
        flops = 6 * built_parameters(config.model) * config.seq_len
    else:
        flops = counted.training_flops
    sequences = config.train.steps * config.train.batch_size
    return flops * sequences / known_matmul_rate(plan.device, autocast=plan.autocast)


def _time_all(config: RunConfig, plan: ExecutionPlan, *, compiling: bool) -> list[Candidate]:
    """Time the ways, simplest first; compile the fastest one only, if it is PyTorch's."""
    precisions = _precisions(plan)
    trials: list[Candidate] = []
    for way in (*_eager_ways(plan, precisions), *_native_ways(config, plan, precisions)):
        trials.append(_time(config, way, _best_s(trials)))
    best = _best(trials)
    if compiling and not best.native:
        compiled = replace(_with_way(plan, best), compiled=True)
        trials.append(_time(config, compiled, _best_s(trials)))
    return trials


def _best_s(trials: Sequence[Candidate]) -> float:
    return min((trial.step_s for trial in trials if trial.step_s is not None), default=math.inf)


def _precisions(plan: ExecutionPlan) -> list[bool]:
    """Return that of the plan, and bfloat16 where it is left open and multiplies faster here."""
    if "autocast" not in _open_fields(plan) or plan.device.type != "cpu":
        return [plan.autocast]
    fp32, bf16 = (matmul_rate(plan.device, autocast=autocast) for autocast in (False, True))
    return [False, True] if bf16 > fp32 else [False]


def _eager_ways(plan: ExecutionPlan, precisions: Sequence[bool]) -> Iterator[ExecutionPlan]:
    """Yield the plan itself, then what else is worth timing of PyTorch."""
    if plan.native:
        return
    kernels: list[Kernel] = [plan.attention]
    if "attention" in _open_fields(plan):
        kernels = ["fused", "blocks"]
    for autocast, kernel in itertools.product(precisions, kernels):
        yield replace(plan, autocast=autocast, attention=kernel)


def _native_ways(
    config: RunConfig, plan: ExecutionPlan, precisions: Sequence[bool]
) -> Iterator[ExecutionPlan]:
    """Yield the ways of the C++ kernels; none if what only PyTorch has is asked for."""
    free = plan.native or "native" in _open_fields(plan)
    if not free or unsupported_reason(config.model, config.train, plan.device) is not None:
        return
    for autocast in precisions:
        if multiplies_bf16() or not autocast:
            yield replace(plan, autocast=autocast, native=True, compiled=False)


def _time(config: RunConfig, plan: ExecutionPlan, best_s: float) -> Candidate:
    """Take a few steps of a new model on random tokens; one, if it is slow or far from the best."""
    rows, width = config.train.batch_size, config.seq_len + 1
    batch = torch.randint(config.model.vocab, (rows, width), generator=torch.Generator())
    plan = replace(plan, config=plan.config.model_copy(update={"steps": _TIMED_STEPS + 1}))
    if plan.compiled:
        keep_compilations()
    try:
        model = GPT.create(config.model, device=plan.device)
        plan.prepare(model)
        steps = train(model, lambda step: batch, config.train.optimizer.build(model), plan)
        elapsed = []
        for report in steps:
            elapsed.append(report.elapsed_s)
            timed_s = elapsed[1:]
            if timed_s and (timed_s[-1] > _HOPELESS * best_s or sum(timed_s) > _ENOUGH_S):
                break
    except (
        RuntimeError,
        MemoryError,
        DivergedError,
    ) as error:  # no compiler, no memory: another may do
        return _trial(plan, None, str(error).strip().partition("\n")[0][:200])
    return _trial(plan, min(elapsed[1:]))


def keep_compilations() -> None:
    """Let torch.compile keep what it makes in the cache folder, for later processes."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder(None) / "compiled"))


def _trial(plan: ExecutionPlan, step_s: float | None, failed: str = "") -> Candidate:
    precision: Literal["fp32", "bf16"] = "bf16" if plan.autocast else "fp32"
    return Candidate(precision, plan.attention, plan.compiled, plan.native, step_s, failed)


def _best(trials: list[Candidate]) -> Candidate:
    """Return the fastest; an earlier, simpler one unless the gain is more than noise."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.step_s is not None and trial.step_s < _MARGIN * (best.step_s or float("inf")):
            best = trial
    return best


def _with_way(plan: ExecutionPlan, trial: Candidate) -> ExecutionPlan:
    autocast = trial.precision == "bf16"
    how = replace(plan, autocast=autocast, attention=trial.attention, compiled=trial.compiled)
    return replace(how, native=trial.native)


def _key(config: RunConfig, plan: ExecutionPlan, *, compiling: bool) -> str:
    """Return a name for all that the timings depend on, and for whether compiling is one."""
    shape = {
        "machine": describe_machine(plan),
        "torch": torch.__version__,
        "model": config.model.model_dump(mode="json"),
        "seq_len": config.seq_len,
        "train": config.train.model_dump(mode="json", include=_TIMED_FIELDS),
        "optimizer": config.train.optimizer.kind,
        "native": any(_native_ways(config, plan, [False])),  # a compiler may have come since
        "compiling": compiling,
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


_TRIALS = TypeAdapter(Annotated[list[Candidate], Field(min_length=1)])
_TIMED_FIELDS = {
    "batch_size",
    "micro_batches",
    "backend",
    "precision",
    "attention",
    "compile",
    "recompute",
}


def _recall(memory: Path) -> list[Candidate] | None:
    """Return the trials kept, or None if there are none that can be read."""
    try:
        return _TRIALS.validate_json(read_bytes(memory, _MOST_BYTES), strict=True)
    except (OSError, ValueError):
        return None


def _remember(memory: Path, trials: list[Candidate]) -> None:
    """Keep the trials; a folder that cannot be written costs a timing next time, no more."""
    rows = [{name: getattr(trial, name) for name in Candidate.__slots__} for trial in trials]
    scratch = memory.with_suffix(f".{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(rows, indent=1))
        scratch.replace(memory)
    except OSError:
        scratch.unlink(missing_ok=True)
