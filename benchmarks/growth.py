"""How the cost of a training step grows with T, L, D, batch and replicas, beside the closed form.

    python benchmarks/growth.py              all five sweeps
    python benchmarks/growth.py --sweep T    one of them

One size changes at a time around L4 D256 H4 T256 V512, batch 4; replicas are of the shape *cpu*,
and a step is one of each, taken together by `engine.replicas`. The C++ kernels take the steps where
they are, in bfloat16 where they multiply it. Every point runs in a process of its own, which gives
the median of its steps and its peak of memory. Time is fitted by least squares with the terms that
the closed form of `assay.count` has in that size, and each coefficient is set beside what the
closed form gives at the measured rate of matrix products. The results go to
benchmarks/results/growth.json.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import results
from apart import measured_apart, peak_bytes
from asked import answered
from assay.engine.device import matmul_rate, resolve_plan
from assay.engine.native_ensemble import EnsembleMember
from assay.engine.vmap_ensemble import train_members
from assay.native.build import kernels
from assay.nn.model import GPT
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import StepReport, train
from assay.train.native_backend import multiplies_bf16
from assay.train.optim import AdamWConfig
from entrants import default_config, step_flops
from shapes import CPU, Shape
from turns import tell

CENTRE = Shape("growth", 4, 256, 4, 256, 512, 4)
SWEEPS: dict[str, tuple[str, tuple[int, ...], int]] = {  # field, values, degree of the polynomial
    "T": ("seq_len", (64, 128, 256, 512, 768, 1024), 2),
    "L": ("n_layers", (1, 2, 4, 6, 8, 12), 1),
    "D": ("d_model", (64, 128, 256, 384, 512, 768), 2),
    "B": ("batch_size", (1, 2, 4, 8, 12, 16), 1),
}
REPLICAS = (1, 2, 4, 8, 16, 32)
_SPENT_S, _FEWEST, _MOST = 1.5, 3, 40


def point(
    shape: Shape, replicas: int = 1, how: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return the median seconds of a step and the bytes it adds to the process at its peak.

    Args:
        shape: Of each model and its batch.
        replicas: How many models.
        how: Fields of `train`: device, backend, precision. None: the fastest way on the CPU.
    """
    before = peak_bytes()
    members = [_member(shape, seed, how or _way()) for seed in range(replicas)]
    steps = _alone(members[0]) if replicas == 1 else _together(members)
    next(steps)
    elapsed: list[float] = []
    end = time.perf_counter() + _SPENT_S
    while len(elapsed) < _FEWEST or (time.perf_counter() < end and len(elapsed) < _MOST):
        elapsed.append(next(steps))
    return {"step_s": statistics.median(elapsed), "added_bytes": float(peak_bytes() - before)}


def _way() -> dict[str, str]:
    """Return the fields of the fastest way that needs no timing: the kernels, where they are."""
    native = kernels().library is not None
    precision = "bf16" if multiplies_bf16() else "fp32"
    return {
        "device": "cpu",
        "backend": "native" if native else "torch",
        "precision": precision,
    }


def _member(shape: Shape, seed: int, how: Mapping[str, str]) -> EnsembleMember:
    fields = {"steps": _MOST + 1, "batch_size": shape.batch_size}
    plan = resolve_plan(decode(TrainConfig, fields | how))
    model = GPT.create(default_config(shape), seed=seed, device=plan.device)
    plan.prepare(model)
    return EnsembleMember(model, shape.batches(plan.device), AdamWConfig().build(model), plan)


def _alone(member: EnsembleMember) -> Iterator[float]:
    """Yield the seconds of each step."""
    for report in train(member.model, member.batch_at, member.optimizers, member.plan):
        yield report.elapsed_s


def _together(members: Sequence[EnsembleMember]) -> Iterator[float]:
    """Yield the seconds of each step of all: a report has its replica's share."""
    for outcomes in train_members(members):
        yield sum(report.elapsed_s for report in outcomes if isinstance(report, StepReport))


def sweep(letter: str, rate: float) -> dict[str, Any]:
    """Measure one sweep and fit it."""
    field, values, degree = SWEEPS[letter]
    shapes = [Shape(**CENTRE.as_dict() | {field: value}) for value in values]
    points = [measured_apart(point, shape) for shape in shapes]
    closed = [step_flops(default_config(shape), shape) / rate for shape in shapes]
    return _fitted(letter, field, values, points, closed, degree)


def sweep_replicas(rate: float) -> dict[str, Any]:
    """Measure steps of 1, 2, 4, ... models of the shape *cpu* and fit them; 1 goes unstacked."""
    points = [measured_apart(point, CPU, replicas) for replicas in REPLICAS]
    once = step_flops(default_config(CPU), CPU) / rate
    return _fitted("R", "replicas", REPLICAS, points, [n * once for n in REPLICAS], degree=1)


def _fitted(
    letter: str,
    field: str,
    values: Sequence[int],
    points: Sequence[dict[str, float]],
    closed: Sequence[float],
    degree: int,
) -> dict[str, Any]:
    for value, found in zip(values, points, strict=True):
        ms, mb = found["step_s"] * 1e3, found["added_bytes"] / 1e6
        tell(f"{letter} = {value}: {ms:.1f} ms, {mb:.0f} MB")
    seconds, added = ([found[what] for found in points] for what in ("step_s", "added_bytes"))
    return {
        "field": field,
        "values": list(values),
        "step_s": seconds,
        "closed_form_s": list(closed),
        "added_bytes": added,
        "fit_s": fit(values, seconds, degree),
        "closed_form_fit_s": fit(values, closed, degree),
        "fit_bytes": fit(values, added, degree),
    }


def fit(values: Sequence[int], costs: Sequence[float], degree: int) -> list[float]:
    """Return the coefficients of 1, x, x², ... by least squares of the relative error.

    Relative, since the costs of a sweep span two orders of magnitude.
    """
    x, y = np.asarray(values, float), np.asarray(costs)
    terms = np.vander(x, degree + 1, increasing=True)
    found, *_ = np.linalg.lstsq(terms / y[:, None], np.ones_like(y), rcond=None)
    return [float(coefficient) for coefficient in found]


def main() -> None:
    """Measure the sweeps asked for, beside those kept."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    letters = [*SWEEPS, "R"]
    ask.add_argument("--sweep", nargs="+", choices=letters, default=letters)
    asked = ask.parse_args()
    rate = measured_apart(_rate)
    measured = {
        letter: sweep_replicas(rate) if letter == "R" else sweep(letter, rate)
        for letter in asked.sweep
    }
    kept = results.kept_here("growth").get("sweeps", {})
    found = {"shape": CENTRE.as_dict(), "way": _way(), "matmul_flops_per_s": rate}
    found["sweeps"] = kept | measured
    results.keep("growth", found)


def _rate() -> float:
    """Return the rate of products in the precision of every point."""
    return matmul_rate(torch.device("cpu"), autocast=_way()["precision"] == "bf16")


if __name__ == "__main__":
    answered(main)
