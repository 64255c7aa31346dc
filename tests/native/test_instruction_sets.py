"""Kernels of other processors, and of a compiler without PyTorch's OpenMP, such as Clang.

Each case runs a file of the tests of training and decoding in a process of its own: with the
library that a wheel has for an older processor, or with a compiler that is told what to leave out.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from programs import compiler_in, of_an_older, with_one_library

from assay.native.compiler import TARGETS, find_compiler

TESTS = Path(__file__).parents[1]
FILES = (
    "train/test_adamw.py",
    "train/test_dropout.py",
    "train/test_kernels.py",
    "train/test_muon.py",
    "decode/test_native_model.py",
)
WIDTHS = {"DEFAULT": 128, "AVX2": 256}


def note_of(environment):
    """Return what the kernels are there."""
    code = "from assay.native.build import kernels; print(kernels().note)"
    return subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | environment, text=True
    )


def passes(files, *chosen, **environment):
    """Run the tests of some files, or those chosen."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *chosen, *(str(TESTS / file) for file in files)],
        env=os.environ | environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[:1000]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", list(TARGETS)[1:])
def test_what_an_older_processor_computes_is_right_too(wheel, tmp_path, name, file):
    folder = of_an_older(wheel[0], tmp_path, name)
    installed = {"PYTHONPATH": str(folder), "CXX": "/nowhere/g++"}
    assert f"vectors of {WIDTHS.get(name, 512)} bits" in note_of(installed)
    passes([file], **installed)


@pytest.mark.slow
@pytest.mark.timeout(600)  # each tile instruction is a signal, where it is emulated
def test_what_tiles_compute_is_right_too(tiles, wheel, tmp_path):
    folder = with_one_library(wheel[0], tmp_path, "AMX")
    installed = {"PYTHONPATH": str(folder), "CXX": "/nowhere/g++", **tiles.environment}
    assert "bfloat16 multiplied in tiles" in note_of(installed)
    passes(FILES, "-k", "not vocabulary", **installed)  # it takes as long as all the others
    assert tiles.were_used(1_000_000)


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_what_threads_of_our_own_compute_is_right_too(tmp_path):
    compiler = f'[ "$1" = --version ] && echo without OpenMP || exec {find_compiler()} "$@" -O1'
    own = {"CXX": compiler_in(tmp_path, compiler), "ASSAY_CACHE": str(tmp_path / "cache")}
    passes(FILES, "-k", "thread", **own)
