"""`kernels.cpp` compiled at first use, kept in the user's cache folder, and loaded.

The library is linked without an OpenMP of its own and takes those symbols from the one PyTorch has
loaded: one pool of threads, whose number `torch.set_num_threads` sets.
"""

import functools
import hashlib
import importlib.resources
import os
import platform
import shutil
import subprocess
import sys
import time
from ctypes import CDLL, POINTER, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from assay.data.cache import cache_folder, open_entry
from assay.decode.abi import Entries, Program
from assay.errors import DataError

_LIBRARY = "kernels.so"
_COMPILE_S = 120
_UNDEFINED = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()


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
    """Return the kernels, compiled now (about four seconds) if nobody has here before."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform == "win32":
        return Kernels(None, "no C++ compiler was found (g++ or clang++)")
    try:
        version = _run([compiler, "--version"], Path.cwd())
        library = _declared(CDLL(str(_built(compiler, version) / _LIBRARY)))
    except subprocess.CalledProcessError as error:
        told = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        return Kernels(None, f"{compiler} could not compile them ({told[0].strip()})")
    except (OSError, DataError, subprocess.TimeoutExpired) as error:
        return Kernels(None, f"they could not be built or loaded ({error})")
    threads = library.assay_threads(torch.get_num_threads())
    bits = 32 * library.assay_lanes()
    return Kernels(library, f"C++ kernels, vectors of {bits} bits, threads: {threads}")


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


def _built(compiler: str, version: str) -> Path:
    """Return the folder that holds the library for this source, compiler and processor."""
    source = importlib.resources.files("assay.decode").joinpath("kernels.cpp").read_text()
    flags = _flags(version)
    key = hashlib.sha256("\0".join((source, version, *flags, _processor())).encode()).hexdigest()
    entry = cache_folder(None) / "kernels" / key
    open_entry(entry, lambda folder: _compile([compiler, *flags], source, folder))
    return entry


def _flags(version: str) -> tuple[str, ...]:
    """Only GCC's OpenMP is the one that PyTorch brings; elsewhere there is one thread."""
    on_arm = platform.machine() in ("arm64", "aarch64")
    threads = ("-fopenmp",) if "Free Software Foundation" in version else ()
    return ("-std=c++17", "-O2", "-fPIC", "-mcpu=native" if on_arm else "-march=native", *threads)


def _compile(command: list[str], source: str, folder: Path) -> None:
    """Compile and link in two steps: linking with -fopenmp would bring a second pool of threads."""
    (folder / "kernels.cpp").write_text(source)
    _run([*command, "-c", "kernels.cpp", "-o", "kernels.o"], folder)
    _run([command[0], "-shared", "kernels.o", "-o", _LIBRARY, *_UNDEFINED], folder)
    (folder / "kernels.o").unlink()


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=_COMPILE_S
    ).stdout


def _declared(library: CDLL) -> CDLL:
    for function, arguments, result in (
        (library.assay_pass, (POINTER(Program), POINTER(Entries)), None),
        (library.assay_read, (c_void_p, c_int64, c_int32), c_double),
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
