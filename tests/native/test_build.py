import subprocess
import sys
from ctypes import CDLL

import pytest
import torch
from programs import compiler_in

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
    assert len([path for path in loaded if "kept" not in path]) == 1


def test_an_openmp_that_pytorch_keeps_to_itself_is_seen_by_what_is_loaded_later(native, tmp_path):
    """As on Arm; a library of PyTorch's that nobody else sees stands for its OpenMP here."""
    if sys.platform != "linux":
        pytest.skip("libraries in memory are listed by Linux")
    kept = tmp_path / "torch" / "libgomp-kept.so"
    kept.parent.mkdir()
    source = tmp_path / "kept.cpp"
    source.write_text('extern "C" int kept_to_itself() { return 7; }')
    command = [find_compiler() or "", "-shared", "-fPIC", source, "-o", kept]
    subprocess.run(command, check=True)
    loaded = CDLL(str(kept))
    assert loaded.kept_to_itself() == 7
    assert not hasattr(CDLL(None), "kept_to_itself")
    build._share_openmp.__wrapped__()
    assert CDLL(None).kept_to_itself() == 7


@pytest.mark.slow
def test_a_library_is_built_once_and_one_that_was_damaged_again(native, fresh, monkeypatch):
    monkeypatch.setenv("CXX", compiler_in(fresh, f'exec {find_compiler()} "$@" -O0'))
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
