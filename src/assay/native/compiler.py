"""Compiling the kernels: for this very processor at first use, for its whole kind in a wheel.

Nothing but the standard library is imported: the wheel's build hook (hatch_build.py) takes this
file before assay is installed.
"""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob("*.cpp")))
HEADERS = tuple(sorted(FOLDER.glob("*.h")))
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma")
_BF16 = (*_AVX512, "-mavx512vnni", "-mavx512bf16")
TARGETS = {
    "AMX": (*_BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
    "AVX512_BF16": _BF16,
    "AVX512": _AVX512,
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
"""What a wheel holds, best first: what `torch.backends.cpu.get_cpu_capability` tells apart, and two
kinds of AVX512 that `torch.cpu.get_capabilities` does."""

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
    """Only GCC's OpenMP is the one that PyTorch brings; elsewhere threads are our own (crew.h)."""
    threads = "-fopenmp" if "Free Software Foundation" in version else "-pthread"
    flags = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC")
    return [compiler, *flags, *target, threads]


def compile_to(library: Path, command: list[str]) -> None:
    """Compile each source, all at once, and link by itself: -fopenmp would bring its own threads.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: If it cannot be done.
    """
    made = [library.with_name(f"{library.stem}-{source.stem}.o") for source in SOURCES]
    with ThreadPoolExecutor() as pool:
        compiling = [
            pool.submit(_run, [*command, "-c", str(source), "-o", str(to)], library.parent)
            for source, to in zip(SOURCES, made, strict=True)
        ]
    for one in compiling:
        one.result()
    linking = [command[0], "-shared", *map(str, made), "-o", str(library), *_UNDEFINED]
    _run(linking, library.parent)
    for path in made:
        path.unlink()


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=_COMPILE_S
    ).stdout
