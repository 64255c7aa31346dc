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


def of_an_older(installed: Path, folder: Path, name: str) -> Path:
    """Return a copy of an unpacked wheel whose one library, for any processor, is that of `name`.

    Skips the test where that is this processor's own, or of a newer one.
    """
    targets, best = list(cxx.TARGETS), build._runnable()[0]
    if name not in targets[targets.index(best) + 1 :]:
        pytest.skip(f"the best library for this processor is that of {best}")
    copied = folder / "installed"
    shutil.copytree(installed, copied)
    for library in (copied / "assay" / "native").glob("kernels-*.so"):
        if library.stem != f"kernels-{name}":
            library.unlink()
    left = copied / "assay" / "native" / f"kernels-{name}.so"
    left.rename(left.with_name("kernels-DEFAULT.so"))
    return copied
