"""Training speed of assay beside its peers, on the same tokens, in turns in one process.

    python benchmarks/training.py                       everything
    python benchmarks/training.py --shape cpu           one shape
    python benchmarks/training.py --shape cpu --find hf litgpt   only find the best settings of two
    python benchmarks/training.py --shape cpu --turns   only take turns, with the settings found

First each entrant is timed by itself in every setting that it may take; then the fastest setting
of each takes part in the turns. What is found goes to benchmarks/results/training-SHAPE.json.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import results
from asked import UNAVAILABLE, answered, device_of, reason
from assay.engine.device import known_matmul_rate, matmul_rate
from entrants import ENTRANTS, PLAIN, Runner, Setting, choice_folder
from shapes import CPU_SHAPES, SHAPES, Shape
from turns import Visit, spread, take_turns, tell, timed, visit_of

_VISIT_S, _ROUNDS, _TRIED_S = 0.4, 9, 2.0
_LEAST_SHARE = 0.2  # of the rate of fp32, under which bf16 products cannot win


@dataclass(frozen=True, slots=True)
class Bench:
    """What is trained, and where."""

    shape: Shape
    device: torch.device

    @property
    def name(self) -> str:
        """Of the file of results."""
        return f"training-{self.shape.name}"


def find(bench: Bench, names: Sequence[str]) -> None:
    """Time entrants in every setting, each by itself, and keep the tokens per second."""
    for name in names:
        entrant = ENTRANTS[name]
        tried = {
            str(setting): _hopeless(bench, setting) or _try(bench, name, setting)
            for setting in entrant.settings
        }
        if not tried:  # it chooses for itself, anew, and remembers it until the turns
            shutil.rmtree(choice_folder(bench.shape, name), ignore_errors=True)
            tried = {"its own choice": _try(bench, name, None)}
        kept = results.kept_here(bench.name, device=str(bench.device)).get("tried", {})
        results.keep(bench.name, {"tried": kept | {name: tried}}, device=str(bench.device))


def _hopeless(bench: Bench, setting: Setting) -> str:
    """Return why a setting need not be timed: on some processors one bf16 step takes minutes."""
    if not setting.bf16:
        return ""
    fp32, bf16 = (known_matmul_rate(bench.device, autocast=autocast) for autocast in (False, True))
    share = bf16 / fp32
    return f"bf16 multiplies at {share:.2g} times the rate of fp32" if share < _LEAST_SHARE else ""


def _try(bench: Bench, name: str, setting: Setting | None) -> float | str:
    """Return tokens per second, or in a line why there are none."""
    torch._dynamo.reset()
    try:
        runner = ENTRANTS[name].make(bench.shape, setting or PLAIN, bench.device)
        step = runner.step
        began = time.perf_counter()
        step()
        first_s = time.perf_counter() - began
        step()
        once = timed(step, 1)
        repeats = min(30, max(1, round(_TRIED_S / once / 3)))
        best = min(timed(step, repeats) for _ in range(3)) / repeats
    except UNAVAILABLE as error:
        tell(f"{bench.shape.name} {name} {setting}: {reason(error)}")
        return reason(error)
    speed = bench.shape.step_tokens / best
    tell(f"{bench.shape.name} {name}, {runner.setting}: {speed:,.0f}/s, first step {first_s:.1f} s")
    return speed


def best_setting(tried: dict[str, float | str]) -> str | None:
    """Return the fastest of the settings that ran, None if none did."""
    speeds = {setting: speed for setting, speed in tried.items() if not isinstance(speed, str)}
    return max(speeds, key=lambda setting: speeds[setting]) if speeds else None


def compare(bench: Bench, names: Sequence[str], rounds: int) -> None:
    """Let the entrants take turns, each in its best setting, and keep every round."""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64  # entrants share the code around their models
    runners, absent = _runners(bench, names)
    amount = float(bench.shape.step_tokens)
    visits: dict[str, Visit] = {
        name: visit_of(runner.step, amount=amount, seconds=_VISIT_S)
        for name, runner in runners.items()
    }
    visits |= {"fp32": lambda: _rate(bench, False), "bf16": lambda: _rate(bench, True)}
    figures = take_turns(visits, rounds=rounds)
    found = {
        "shape": bench.shape.as_dict(),
        "matmul_flops_per_s": {name: figures.pop(name) for name in ("fp32", "bf16")},
        "rows": {name: _row(runners[name], speeds) for name, speeds in figures.items()},
        "absent": absent,
    }
    results.keep(bench.name, found, device=str(bench.device))
    for name, speeds in figures.items():
        tell(f"{name:16} {spread(speeds).median:10,.0f} tokens/s  {runners[name].setting}")


def _runners(bench: Bench, names: Sequence[str]) -> tuple[dict[str, Runner], dict[str, str]]:
    """Build entrants in the settings found for them; return those and why others are absent."""
    found = results.kept_here(bench.name, device=str(bench.device)).get("tried", {})
    runners, absent = {}, {}
    for name in names:
        tried = found.get(name, {})
        words = best_setting(tried)
        if words is None:
            absent[name] = str(next(iter(tried.values()), "its settings were not timed"))
            continue
        by_words = {str(setting): setting for setting in ENTRANTS[name].settings}
        runners[name] = ENTRANTS[name].make(bench.shape, by_words.get(words, PLAIN), bench.device)
    return runners, absent


def _rate(bench: Bench, bf16: bool) -> float:
    return matmul_rate(bench.device, autocast=bf16)


def _row(runner: Runner, speeds: list[float]) -> dict[str, Any]:
    return {
        "setting": runner.setting,
        "parameters": runner.parameters,
        "step_flops": runner.step_flops,
        "tokens_per_s": speeds,
    }


def main() -> None:
    """Measure what the command line asks for."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--shape", nargs="+", choices=SHAPES, default=CPU_SHAPES)
    ask.add_argument("--entrants", nargs="+", choices=ENTRANTS, default=list(ENTRANTS))
    ask.add_argument("--find", nargs="*", metavar="ENTRANT", help="only find settings, of these")
    ask.add_argument("--turns", action="store_true", help="only take turns")
    ask.add_argument("--rounds", type=int, default=_ROUNDS)
    ask.add_argument("--device", default="cpu")
    asked = ask.parse_args()
    device = device_of(asked.device)
    for name in asked.shape:
        bench = Bench(SHAPES[name], device)
        if not asked.turns:
            find(bench, asked.find or asked.entrants)
        if asked.find is None:
            compare(bench, asked.entrants, asked.rounds)


if __name__ == "__main__":
    answered(main)
