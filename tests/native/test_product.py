"""Products of the kernels beside a loop, for every kind of processor that this one can be."""

import subprocess
from pathlib import Path

import pytest

from assay.native import compiler as cxx
from assay.native.build import runs

SOURCE = Path(__file__).with_name("product.cpp")


@pytest.mark.skipif(cxx.find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("target", cxx.shipped_targets())
def test_products_of_whole_numbers_are_exact(tmp_path, target):
    if not runs(target):
        pytest.skip(f"this processor has not the instructions of {target}")
    compiler, program = cxx.find_compiler(), tmp_path / "product"
    command = cxx.command_of(compiler, cxx.version_of(compiler), cxx.TARGETS[target])
    subprocess.run([*command, f"-I{cxx.FOLDER}", SOURCE, "-o", program], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    *wrong, taken = done.stdout.splitlines()
    assert not wrong
    assert int(taken) > 1000
