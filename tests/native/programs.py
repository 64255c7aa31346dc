"""Compilers told something more, programs that try the kernels' own headers, wheels, AMX."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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


def compiled(
    source: str, program: Path, version: str | None = None, target: str = "DEFAULT", *more: str
) -> Path:
    """Compile a source beside this file.

    Args:
        source: Its name.
        program: Where it is to be.
        version: What the compiler is taken to say of itself; by default what it says.
        target: One of `compiler.TARGETS`.
        more: Flags.
    """
    compiler = cxx.find_compiler()
    command = cxx.command_of(compiler, version or cxx.version_of(compiler), cxx.TARGETS[target])
    where = Path(__file__).with_name(source)
    subprocess.run([*command, f"-I{cxx.FOLDER}", where, "-o", program, *more], check=True)
    return program


def said_by(
    source: str,
    folder: Path,
    version: str | None = None,
    target: str = "DEFAULT",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Compile a source beside this file into a folder, run it and return what it prints.

    `environment` is added to this process's; the others are those of `compiled`.
    """
    program = compiled(source, folder / "program", version, target)
    environment = os.environ | (environment or {})
    return subprocess.check_output([program], text=True, env=environment)


@dataclass(frozen=True)
class Tiles:
    """How programs execute AMX's instructions: see amx_emulator.cpp.

    Attributes:
        library: The emulator.
        counts: Where each process that ends leaves the number of tile instructions it executed.
    """

    library: Path
    counts: Path

    @property
    def environment(self) -> dict[str, str]:
        others = os.environ.get("LD_PRELOAD", "")
        preload = f"{self.library} {others}".strip()
        return {"LD_PRELOAD": preload, "AMX_EMULATOR_COUNTS": str(self.counts)}

    def were_used(self, at_least: int) -> bool:
        """Tell whether so many were emulated; those of a processor are not counted."""
        if build.runs("AMX"):
            return True
        counts = self.counts.read_text().split() if self.counts.is_file() else []
        return sum(map(int, counts)) >= at_least


def why_no_tiles() -> str | None:
    """Return why AMX's instructions can be neither executed nor emulated here, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "AMX is emulated on x86-64 Linux alone"
    if not build.runs("AVX512_BF16"):
        return "this processor has not the instructions of AVX512_BF16, which AMX's library has too"
    return None if cxx.find_compiler() else "no C++ compiler"


def of_an_older(installed: Path, folder: Path, name: str) -> Path:
    """Return a copy of an unpacked wheel whose one library, for any processor, is that of `name`.

    Skips the test where that is this processor's own, or of a newer one.
    """
    targets, best = list(cxx.TARGETS), build._runnable()[0]
    if name not in targets[targets.index(best) + 1 :]:
        pytest.skip(f"the best library for this processor is that of {best}")
    return with_one_library(installed, folder, name)


def with_one_library(installed: Path, folder: Path, name: str) -> Path:
    """Return a copy of an unpacked wheel that has the library of `name` for any processor."""
    copied = folder / "installed"
    shutil.copytree(installed, copied)
    for library in (copied / "assay" / "native").glob("kernels-*.so"):
        if library.stem != f"kernels-{name}":
            library.unlink()
    left = copied / "assay" / "native" / f"kernels-{name}.so"
    left.rename(left.with_name("kernels-DEFAULT.so"))
    return copied
