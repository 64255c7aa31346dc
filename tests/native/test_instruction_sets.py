"""The kernels compiled for less than this processor has are the kernels of other processors.

So are those of a compiler without PyTorch's OpenMP, such as Clang. Each case runs the tests of
training and decoding in a process of its own, with a compiler that is told what to leave out.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from programs import compiler_in

from assay.native.build import runs
from assay.native.compiler import find_compiler

TESTS = Path(__file__).parents[1]
FILES = (
    "train/test_adamw.py",
    "train/test_dropout.py",
    "train/test_kernels.py",
    "train/test_muon.py",
    "decode/test_program.py",
)
TO_VECTORS = "-mno-amx-tile -mno-amx-bf16 -mno-amx-int8"
TO_AVX512 = f"{TO_VECTORS} -mno-avx512bf16 -mno-avx512vnni"
CASES = {
    "vectors of bfloat16": (TO_VECTORS, "AMX"),
    "AVX-512 alone": (TO_AVX512, "AVX512_BF16"),
    "AVX2": (f"{TO_VECTORS} -mno-avx512f", "AVX512"),
    "no vectors that are told": (f"{TO_VECTORS} -mno-avx", "AVX2"),
}


def passes(folder, compiler, *chosen):
    """Run the tests, or those chosen, with kernels that a command of the shell compiles."""
    environment = {"CXX": compiler_in(folder, compiler), "ASSAY_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *chosen, *(str(TESTS / file) for file in FILES)],
        env=os.environ | environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", CASES)
def test_what_an_older_processor_computes_is_right_too(tmp_path, name):
    flags, better = CASES[name]
    if not runs(better):
        pytest.skip(f"this processor has no {better} to leave out")
    passes(tmp_path, f'exec {find_compiler()} "$@" {flags}')


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_what_threads_of_our_own_compute_is_right_too(tmp_path):
    compiler = f'[ "$1" = --version ] && echo without OpenMP || exec {find_compiler()} "$@" -O1'
    passes(tmp_path, compiler, "-k", "thread")
