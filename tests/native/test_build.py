import sys

import pytest
import torch

from assay.generate import GenerateOptions, generate
from assay.native import build
from assay.native.build import at_hand, kernels, read_rate
from assay.native.compiler import find_compiler
from assay.nn.model import GPT, ModelConfig
from assay.sampling import SamplingConfig


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a process that has not asked for the kernels yet, with a cache of its own."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    kernels.cache_clear()
    yield tmp_path
    kernels.cache_clear()


def test_the_threads_are_those_of_pytorch(native):
    if sys.platform != "linux":
        pytest.skip("libraries in memory are listed by Linux")
    with open("/proc/self/maps") as maps:
        loaded = {line.split()[-1] for line in maps if "libgomp" in line}
    assert len(loaded) == 1


@pytest.mark.slow
def test_a_library_is_built_once_and_one_that_was_damaged_again(native, fresh, monkeypatch):
    quick = fresh / "quick"
    quick.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -O0\n')
    quick.chmod(0o755)
    monkeypatch.setenv("CXX", str(quick))
    assert at_hand() is None
    assert kernels().library is not None
    assert at_hand().note == kernels().note
    (library,) = fresh.glob("kernels/*/kernels.so")
    built = library.stat().st_mtime_ns
    kernels.cache_clear()
    assert kernels().library is not None
    assert library.stat().st_mtime_ns == built
    library.unlink()  # not written over: this process has it in memory
    library.write_bytes(b"")
    kernels.cache_clear()
    assert kernels().library is not None
    assert library.stat().st_size > 0


@pytest.mark.parametrize(
    ("compiler", "note"),
    [("/nowhere/g++", "could not be built or loaded"), ("false", "could not compile")],
)
def test_without_a_compiler_pytorch_reads_and_the_reason_is_told(
    fresh, monkeypatch, compiler, note
):
    monkeypatch.setenv("CXX", compiler)
    assert kernels().library is None
    assert note in kernels().note
    assert read_rate() is None
    run = generate(
        GPT.create(ModelConfig(vocab_size=37)),
        [[1, 2]],
        SamplingConfig(),
        options=GenerateOptions(max_new_tokens=4, weights="int8"),
    )
    assert len(list(run)) == 4


def test_no_compiler_at_all_is_told(fresh, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.cxx.shutil, "which", lambda name: None)
    assert kernels().note == "no C++ compiler was found (g++ or clang++)"


@pytest.mark.parametrize("capability", ["AVX512", "SVE256"])
def test_a_pytorch_that_tells_less_of_the_processor_is_enough(monkeypatch, capability):
    """The oldest one has no `get_capabilities`; of Arm no wheel has more than the plain kernels."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert build._runnable() == [capability, "DEFAULT"]
    assert not build.runs("AVX512")


def test_reading_is_timed(native):
    assert 1e8 < read_rate(1 << 22, rounds=2) < 1e13
