"""Compiling `kernels.cpp`: for this very processor at first use, for its whole kind in a wheel.

Nothing but the standard library is imported: the wheel's build hook (hatch_build.py) takes this
file before assay is installed.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
TARGETS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
"""What a wheel holds, by the names of `torch.backends.cpu.get_cpu_capability`."""

_COMPILE_S = 120
_UNDEFINED = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()


def find_compiler() -> str | None:
    """Return $CXX, g++ or clang++; None on Windows, or where there is none of them."""
    if sys.platform == "win32":
        return None
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def version_of(compiler: str) -> str:
    """Return what a compiler says of itself.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: If it says nothing.
    """
    return _run([compiler, "--version"], Path.cwd())


def native() -> tuple[str, ...]:
    """Return the flag for the processor at hand."""
    return ("-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native",)


def shipped_targets() -> dict[str, tuple[str, ...]]:
    """Return what a wheel for this machine holds; of other processors than x86 the plain one."""
    if platform.machine() in ("x86_64", "AMD64"):
        return TARGETS
    return {"DEFAULT": TARGETS["DEFAULT"]}


def command_of(compiler: str, version: str, target: tuple[str, ...]) -> list[str]:
    """Only GCC's OpenMP is the one that PyTorch brings; elsewhere there is one thread."""
    threads = ("-fopenmp",) if "Free Software Foundation" in version else ()
    return [compiler, "-std=c++17", "-O2", "-fPIC", *target, *threads]


def compile_to(library: Path, command: list[str]) -> None:
    """Compile and link in two steps: linking with -fopenmp would bring a second pool of threads.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: If it cannot be done.
    """
    made = library.with_suffix(".o")
    _run([*command, "-c", str(SOURCE), "-o", str(made)], library.parent)
    _run([command[0], "-shared", str(made), "-o", str(library), *_UNDEFINED], library.parent)
    made.unlink()


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=_COMPILE_S
    ).stdout
