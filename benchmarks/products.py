"""Rates of the C++ kernels' own products on one thread, by instruction set.

    python benchmarks/products.py
    python benchmarks/products.py --target AVX2 AVX512_BF16 --beside ~/assay-before

Every product is repeated while its operands are in the caches: this tells what the inner loops
reach, not what a step does. `--beside` compiles the kernels of another checkout too, and measures
both in turns.
"""

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from asked import answered
from assay.errors import ConfigError
from assay.native import compiler as cxx
from assay.native.build import runs

_SOURCE = Path(__file__).with_suffix(".cpp")
_VISIT_S, _ROUNDS = 0.2, 3
_TARGETS = [target for target in cxx.TARGETS if target != "AMX" and runs(target)]
"""What is measured unless asked; not AMX, which the system may forbid."""

Rates = dict[str, list[float]]
"""By the name of a product: GFLOP/s of every program."""


def measure(targets: Sequence[str], checkouts: Sequence[Path], rounds: int) -> dict[str, Rates]:
    """Return the best rates over all rounds, by target.

    Raises:
        ConfigError: If there is no compiler, or it cannot compile the kernels of a checkout.
    """
    with tempfile.TemporaryDirectory() as folder:
        programs = {
            target: [_compiled(target, checkout, Path(folder)) for checkout in checkouts]
            for target in targets
        }
        found: dict[str, Rates] = {}
        for target in targets:
            rates: Rates = defaultdict(lambda: [0.0] * len(checkouts))
            for _ in range(rounds):
                for place, program in enumerate(programs[target]):
                    for name, rate in _run(program).items():
                        rates[name][place] = max(rates[name][place], rate)
            found[target] = rates
    return found


def _compiled(target: str, checkout: Path, folder: Path) -> Path:
    compiler = cxx.find_compiler()
    if compiler is None:
        raise ConfigError("no C++ compiler found; install g++ or clang++, or name one in CXX.")
    program = folder / f"{target}-{checkout.name}-{len(list(folder.iterdir()))}"
    command = cxx.command_of(compiler, cxx.version_of(compiler), cxx.TARGETS[target])
    headers = checkout / "src" / "assay" / "native"
    done = subprocess.run(
        [*command, f"-I{headers}", str(_SOURCE), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise ConfigError(f"{headers}: {compiler} cannot compile its products: {reason}")
    return program


def _run(program: Path) -> dict[str, float]:
    command = [str(program), str(_VISIT_S)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        target = program.name.partition("-")[0]
        raise ConfigError(
            f"--target {target}: its products ended with status {done.returncode}; "
            "does this processor have these instructions?"
        )
    return {_name(row): row["gflops"] for row in map(json.loads, done.stdout.splitlines())}


def _name(row: dict[str, object]) -> str:
    how = "turned" if row["turned"] else ""
    return f"{row['precision']} {row['m']:>4} x {row['n']:>5} x {row['k']:>4} {how}"


def main() -> None:
    """Measure and print."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--target", nargs="+", choices=list(cxx.TARGETS), default=_TARGETS)
    ask.add_argument("--beside", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    ask.add_argument("--rounds", type=int, default=_ROUNDS)
    asked = ask.parse_args()
    checkouts = [*asked.beside, Path(__file__).parents[1]]
    for target, rates in measure(asked.target, checkouts, asked.rounds).items():
        print(f"{target}: GFLOP/s of one thread, {', '.join(map(str, checkouts))}")
        for name, found in rates.items():
            print(f"  {name:33}", *(f"{rate:8.1f}" for rate in found))


if __name__ == "__main__":
    answered(main)
