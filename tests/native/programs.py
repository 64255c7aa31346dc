"""Compilers that are told something more, programs that try the kernels' own headers, wheels."""

import shutil
import subprocess
from pathlib import Path

import pytest

from assay.native import build
from assay.native import compiler as cxx


def compiler_in(folder: Path, command: str) -> str:
    """Return a compiler that is a command of the shell, such as `exec g++ "$@" -O0`."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


def said_by(source: str, folder: Path, version: str | None = None, target: str = "DEFAULT") -> str:
    """Compile a source beside this file, run it and return what it prints.

    Args:
        source: Its name.
        folder: For the program.
        version: What the compiler is taken to say of itself; by default what it says.
        target: One of `compiler.TARGETS`.
    """
    compiler, program = cxx.find_compiler(), folder / "program"
    command = cxx.command_of(compiler, version or cxx.version_of(compiler), cxx.TARGETS[target])
    where = Path(__file__).with_name(source)
    subprocess.run([*command, f"-I{cxx.FOLDER}", where, "-o", program], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def without_better(installed: Path, folder: Path, name: str) -> Path:
    """Return a copy of an unpacked wheel whose best library for this processor is `name`."""
    runnable = build._runnable()
    if name not in runnable[1:]:
        pytest.skip(f"this processor runs {', '.join(runnable)}, of which the first is its own")
    copied = folder / "installed"
    shutil.copytree(installed, copied)
    for better in runnable[: runnable.index(name)]:
        (copied / "assay" / "native" / f"kernels-{better}.so").unlink()
    return copied
