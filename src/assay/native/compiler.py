"""Compiling the kernels: for this very processor at first use, for its whole kind in a wheel.

Nothing but the standard library is imported: the wheel's build hook (hatch_build.py) takes this
file before assay is installed.
"""

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
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

WARNINGS = ("-Wall", "-Wextra", "-Wno-psabi")
"""All but GCC's note that wide vectors are passed otherwise by compilers of no such vectors: no
function that takes one is exported."""
COMPILE_S = 120
"""Longest that one source may take; a compiler that hangs is ended then."""
_VERSION_S = 30
_STANDARD = "-std=c++17"
_UNDEFINED = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()


def find_compiler() -> str | None:
    """Return $CXX, g++ or clang++; None on Windows, or where there is none of them."""
    if sys.platform == "win32":
        return None
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def words_of(compiler: str) -> list[str]:
    """Return a compiler as the words of a command: `CXX="ccache g++"` is two of them.

    Raises:
        OSError: If a quote in it is never closed.
    """
    if shutil.which(compiler):  # also a path with a space in it
        return [compiler]
    try:
        return shlex.split(compiler)
    except ValueError as error:
        raise OSError(f"CXX={compiler!r} is no command of the shell: {error}") from None


def version_of(compiler: str) -> str:
    """Return what a compiler says of itself.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: If it says nothing.
    """
    return _run_all([[*words_of(compiler), "--version"]], Path.cwd(), _VERSION_S)


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
    flags = (_STANDARD, "-O3", "-ffp-contract=off", "-fPIC", *WARNINGS)
    return [*words_of(compiler), *flags, *target, threads]


def compile_to(library: Path, command: list[str], limit_s: int = COMPILE_S) -> None:
    """Compile each source, all at once, and link by itself: -fopenmp would bring its own threads.

    Args:
        library: The file to be written.
        command: As `command_of` returns it.
        limit_s: Longest that compiling, then linking, may take.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: If it cannot be done.
    """
    folder = library.parent
    objects = [library.with_name(f"{library.stem}-{source.stem}.o") for source in SOURCES]
    pairs = zip(SOURCES, objects, strict=True)
    _run_all(
        [[*command, "-c", str(source), "-o", str(to)] for source, to in pairs], folder, limit_s
    )
    compiler = command[: command.index(_STANDARD)]
    linked = [*compiler, "-shared", *map(str, objects), "-o", str(library), *_UNDEFINED]
    _run_all([linked], folder, limit_s)
    for path in objects:
        path.unlink()


def _run_all(commands: list[list[str]], folder: Path, limit_s: int) -> str:
    """Run commands side by side and return what they print, whatever its encoding.

    Each has a process group of its own, so that whatever it started ends with it.
    """
    running: list[subprocess.Popen[str]] = []
    ends, printed = time.monotonic() + limit_s, ""
    try:
        for command in commands:
            running.append(_start(command, folder))
        for process in running:
            output, errors = process.communicate(timeout=max(0.0, ends - time.monotonic()))
            if process.returncode:
                raise subprocess.CalledProcessError(
                    process.returncode, process.args, output, errors
                )
            printed += output
    finally:
        for process in running:
            _end(process)
    return printed


def _start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process that is still there, and all it started."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
