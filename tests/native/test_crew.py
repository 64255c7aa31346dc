"""Threads of our own, where the compiler's OpenMP is not PyTorch's."""

import pytest
from programs import said_by

from assay.native.compiler import find_compiler


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_each_thread_of_a_run_is_there_once_whatever_was_run_before(tmp_path):
    assert not said_by("crew.cpp", tmp_path, version="without OpenMP")
