"""Random architectures in every way they are computed; one is tried by its seed alone.

python tests/torture/random_architectures.py SEED
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from assay.native.build import kernels

PROGRAM = Path(__file__).with_name("random_architectures.py")
WAYS = ("fp32", "bf16", "eager", "decoding", "optimizer")
SLICE = 100  # cases of one process


def tried(first, last, ways):
    """Return what became of each seed of a slice; one that ended its process is told as a fault."""
    found = {}
    while first < last:
        done = subprocess.run(
            [sys.executable, PROGRAM, str(first), str(last), f"--ways={','.join(ways)}"],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {line["seed"]: line for line in lines if "seed" in line}
        if not done.returncode:
            break
        begun = max((line["begins"] for line in lines if "begins" in line), default=first)
        told = f"ended with status {done.returncode}: {done.stderr[-500:]}"
        found[begun] = {"wrong": [told], "lost": []}
        first = begun + 1
    return found


def all_of(total, ways):
    found = {}
    for first in range(0, total, SLICE):
        found |= tried(first, min(total, first + SLICE), ways)
    assert sorted(found) == list(range(total))
    return found


@pytest.fixture(autouse=True)
def _able():
    if kernels().library is None:
        pytest.skip(f"no kernels here: {kernels().note}")


def test_a_random_architecture_is_what_float64_says_in_every_way(load, record):
    total = load(50, 2000)
    found = all_of(total, WAYS)
    wrong = {seed: case["wrong"] for seed, case in found.items() if case["wrong"]}
    lost = Counter(way for case in found.values() for way in case["lost"])
    for seed, faults in wrong.items():
        print(f"python tests/torture/{PROGRAM.name} {seed}  # {'; '.join(faults)}")
    told = ", ".join(f"{way} {count}" for way, count in sorted(lost.items()))
    record(
        "architectures",
        f"{total} random architectures: loss and gradients by the kernels (fp32, bf16) and by "
        "PyTorch, decoding (fp32, bf16, int8; whole and token by token), steps of AdamW and Muon",
        f"{len(wrong)} beyond the rounding of float64's own answer, no crash; too ill-conditioned "
        f"to compare: {told}",
    )
    assert wrong == {}
    assert all(count < total / 2 for count in lost.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_no_number_before_leaves_no_trace(precision, load, record):
    """Passes of a model whose weights are no numbers, then a sound one's in the same memory."""
    total = load(50, 2000)
    found = all_of(total, [f"after-{precision}"])
    wrong = {seed: case["wrong"] for seed, case in found.items() if case["wrong"]}
    for seed, faults in wrong.items():
        print(f"python tests/torture/{PROGRAM.name} {seed}  # {'; '.join(faults)}")
    record(
        f"architectures-after-{precision}",
        f"{total} random architectures after two of the same with NaN or infinity among the "
        f"weights, in the same memory, {precision}",
        f"{len(wrong)} with other bits in loss, gradients or logits",
    )
    assert wrong == {}
