import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from programs import Tiles, compiled, compiler_in, why_no_tiles

from assay.native.compiler import find_compiler
from patience import HANG_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, worker_id):
    """The folder of an unpacked wheel, built once for all processes of pytest, and its name.

    Beside it is `warnings`: what the compiler said.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root if worker_id == "master" else root.parent) / "wheel"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "installed").is_dir():
            left_out = shutil.ignore_patterns(".*", "__pycache__", "results", "paper")
            shutil.copytree(ROOT, folder / "source", ignore=left_out)
            build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
            environment = os.environ | _tells_in(folder)
            subprocess.run(
                build,
                cwd=folder / "source",
                env=environment,
                check=True,
                capture_output=True,
                timeout=HANG_S,
            )
            (path,) = folder.glob("*.whl")
            zipfile.ZipFile(path).extractall(folder / "unpacked")
            (folder / "unpacked").rename(folder / "installed")
    (path,) = folder.glob("*.whl")
    return folder / "installed", path.name


def _tells_in(folder):
    """Let a compiler, if there is one, write what it says into a file of a folder too."""
    (folder / "warnings").touch()
    if (compiler := find_compiler()) is None:
        return {}
    said, all_said = f'"{folder}/said-$$"', f'"{folder}/warnings"'
    command = f'{compiler} "$@" 2> {said}\nstatus=$?\ntee -a {all_said} < {said} >&2'
    return {"CXX": compiler_in(folder, f"{command}\nrm {said}\nexit $status")}


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The library that executes AMX's instructions where the processor has none."""
    if (reason := why_no_tiles()) is not None:
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("amx") / "emulator.so"
    return compiled("amx_emulator.cpp", path, None, "AVX512", "-shared", "-ldl", "-w")


@pytest.fixture
def tiles(emulator, tmp_path):
    """How programs of this test execute AMX's instructions."""
    return Tiles(emulator, tmp_path / "counts")
