"""Products of the kernels beside a loop, for every kind of processor that this one can be."""

import pytest
from programs import said_by

from assay.native.build import runs
from assay.native.compiler import find_compiler, shipped_targets


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("target", [target for target in shipped_targets() if target != "AMX"])
def test_products_of_whole_numbers_are_exact(tmp_path, target):
    if not runs(target):
        pytest.skip(f"this processor has not the instructions of {target}")
    *wrong, taken = said_by("product.cpp", tmp_path, target=target).splitlines()
    assert not wrong
    assert int(taken) > 1000


def test_products_of_whole_numbers_in_tiles_are_exact(tmp_path, tiles):
    said = said_by("product.cpp", tmp_path, target="AMX", environment=tiles.environment)
    *wrong, taken = said.splitlines()
    assert not wrong
    assert int(taken) > 1000
    assert tiles.were_used(100_000)
