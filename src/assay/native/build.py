"""The kernels, loaded: as a wheel brought them, or compiled at first use into the user's cache.

The library is linked without an OpenMP of its own and takes those symbols from the one PyTorch has
loaded: one pool of threads, whose number `torch.set_num_threads` sets. Without OpenMP it has
threads of its own.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from ctypes import CDLL, POINTER, RTLD_GLOBAL, c_double, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from assay.data.cache import cache_folder, find_fault, open_entry
from assay.errors import DataError
from assay.native import compiler as cxx
from assay.native.abi import (
    Entries,
    GradientOf,
    MatrixOf,
    Program,
    TrainedModel,
    TrainingJob,
    UpdateOf,
)

_log = logging.getLogger(__name__)
_LIBRARY = "kernels.so"
_BF16 = ("avx512_f", "avx512_bf16", "avx512_vnni")
_NEEDED = {
    "AMX": (*_BF16, "amx_tile", "amx_bf16", "amx_int8"),
    "AVX512_BF16": _BF16,
    "AVX512": ("avx512_f",),
    "AVX2": ("avx2",),
    "DEFAULT": (),
}
"""By target: those names of `torch.cpu.get_capabilities` that tell it from the next."""


@final
@dataclass(frozen=True, slots=True)
class Kernels:
    """What became of the kernels on this machine.

    Attributes:
        library: None where there is none.
        note: In a few words, what it is or why it is not there.
    """

    library: CDLL | None
    note: str


@functools.cache
def kernels() -> Kernels:
    """Return the kernels, compiled now (half a minute) if neither wheel nor cache has them."""
    if (shipped := _shipped()) is not None:
        return _described(shipped)
    compiler = cxx.find_compiler()
    if compiler is None:
        return Kernels(None, "no C++ compiler was found (g++ or clang++)")
    try:
        return _described(_loaded(_built(compiler) / _LIBRARY))
    except subprocess.CalledProcessError as error:
        told = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        return Kernels(None, f"{compiler} could not compile them ({told[0].strip()})")
    except (OSError, DataError, subprocess.TimeoutExpired) as error:
        return Kernels(None, f"they could not be built or loaded ({error})")


def _shipped() -> CDLL | None:
    """Return the best of what the wheel brought that this processor can run and that loads."""
    for name in _runnable():
        path = cxx.FOLDER / f"kernels-{name}.so"
        try:
            if path.is_file():
                return _loaded(path)
        except (OSError, AttributeError):  # of a machine too unlike the one it was compiled on
            continue
    return None


def _runnable() -> list[str]:
    """Return the targets that are for this processor, best first."""
    plain = torch.backends.cpu.get_cpu_capability()  # of Arm also what no wheel is made for: SVE256
    finer = ("AMX", "AVX512_BF16") if plain == "AVX512" else ()
    return [*(target for target in finer if runs(target)), plain, "DEFAULT"]


def runs(target: str) -> bool:
    """Tell whether this processor has the instructions of a target.

    Before PyTorch told of them (2.11), no processor has any.
    """
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return all(has.get(name) for name in _NEEDED[target])


def at_hand() -> Kernels | None:
    """Return the kernels if a wheel brought them or they are compiled already; compile nothing."""
    if (shipped := _shipped()) is not None:
        return _described(shipped)
    compiler = cxx.find_compiler()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if compiler is not None and find_fault(entry := _entry(compiler)) is None:
            return _described(_loaded(entry / _LIBRARY))
    return None


def _described(library: CDLL) -> Kernels:
    threads = library.assay_threads(torch.get_num_threads())
    bits = 32 * library.assay_lanes()
    bf16 = ("float32", "vectors", "tiles")[library.assay_bf16_products()]
    told = f"vectors of {bits} bits, bfloat16 multiplied in {bf16}, threads: {threads}"
    return Kernels(library, f"C++ kernels, {told}")


def read_rate(n_bytes: int = 1 << 28, *, rounds: int = 7) -> float | None:
    """Measure the bytes per second that all threads together read from memory; None without."""
    library = kernels().library
    if library is None:
        return None
    buffer, best = torch.ones(n_bytes // 4), float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        library.assay_read(buffer.data_ptr(), buffer.numel(), torch.get_num_threads())
        best = min(best, time.perf_counter() - began)
    return buffer.nbytes / best


def _built(compiler: str) -> Path:
    """Return the folder that holds the library for this source, compiler and processor."""
    command = cxx.command_of(compiler, cxx.version_of(compiler), cxx.native())

    def build(folder: Path) -> None:
        _log.warning("compiling the C++ kernels for this processor, once: about half a minute")
        cxx.compile_to(folder / _LIBRARY, command)

    entry = _entry(compiler)
    open_entry(entry, build)
    return entry


def _entry(compiler: str) -> Path:
    version = cxx.version_of(compiler)
    command = cxx.command_of(compiler, version, cxx.native())
    sources = (path.read_text() for path in (*cxx.HEADERS, *cxx.SOURCES))
    told = (*sources, version, *command[1:], _processor())
    key = hashlib.sha256("\0".join(told).encode()).hexdigest()
    return cache_folder(None) / "kernels" / key


def _loaded(path: Path) -> CDLL:
    """Load a library.

    Raises:
        OSError, AttributeError: If it is not one of these kernels, or not for this machine.
    """
    _share_openmp()
    return _declared(CDLL(str(path)))


@functools.cache
def _share_openmp() -> None:
    """Let what is loaded from now on see PyTorch's OpenMP, which it keeps to itself on Arm."""
    with contextlib.suppress(OSError):  # no Linux, or no such library
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = sorted({line.split()[-1] for line in lines if "libgomp" in line})
        of_torch = [path for path in paths if "torch" in path]
        for path in of_torch or paths:
            CDLL(path, mode=RTLD_GLOBAL | os.RTLD_NOLOAD)


def _declared(library: CDLL) -> CDLL:
    for function, arguments, result in (
        (library.assay_pass, (POINTER(Program), POINTER(Entries)), None),
        (
            library.assay_pack,
            (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32),
            None,
        ),
        (library.assay_read, (c_void_p, c_int64, c_int32), c_double),
        (library.assay_pass_new, (POINTER(TrainedModel), c_int32, c_int32), c_void_p),
        (library.assay_pass_free, (c_void_p,), None),
        (library.assay_train, (c_void_p, POINTER(TrainingJob), c_int32), None),
        (
            library.assay_train_apart,
            (POINTER(c_void_p), c_int32, POINTER(TrainingJob), c_int32),
            None,
        ),
        (library.assay_muon, (POINTER(MatrixOf), c_int32, c_float, c_int32, c_int32), None),
        (library.assay_norm, (POINTER(GradientOf), c_int32, c_int32), c_double),
        (
            library.assay_adamw,
            (POINTER(UpdateOf), POINTER(GradientOf), c_int32, c_float, c_int32),
            None,
        ),
        (library.assay_bf16_products, (), c_int32),
        (library.assay_lanes, (), c_int32),
        (library.assay_threads, (c_int32,), c_int32),
    ):
        function.argtypes, function.restype = arguments, result
    return library


def _processor() -> str:
    """Return what the compiler's `native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = (line for line in lines if line.lower().startswith(("model name", "flags", "features")))
    return "\n".join(sorted(set(told)))
