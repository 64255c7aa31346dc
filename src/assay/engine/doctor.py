"""What of this machine is slow or wrong for training, and how to mend it.

Each `Finding` is one thing looked at: what was found, whether it is as it should be, and what to do
if not. Nothing is changed, nothing leaves the machine.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import torch

from assay.data.cache import cache_folder
from assay.disk import sha256_of
from assay.engine.device import free_bytes, matmul_rate, processor_name, resolve_plan
from assay.native import build
from assay.native import compiler as cxx
from assay.native.build import at_hand, renewed
from assay.native.selfcheck import check
from assay.schema import decode
from assay.train.config import TrainConfig

_EXTRAS = {"board": "tensorboard", "hub": "datasets"}
_ROOM = 2 << 30  # bytes a training on a text of some size may want for texts and checkpoints
_MEMORY = 2 << 30
_IN_TILES = 2  # as `assay_bf16_products` tells
_FAIR_SHARE = 0.6  # of the speed that another thread should add


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What it is called in the machine-readable line.
        found: What was found, in words.
        fine: Whether it is as it should be.
        mend: What to do if it is not; empty if it is.
        value: The figure behind the words, if there is one.
    """

    name: str
    found: str
    fine: bool = True
    mend: str = ""
    value: float | str | None = None


def examine(runs: Path) -> Iterator[Finding]:
    """Yield what is found, a few seconds in all; `runs` is the folder runs would go to."""
    yield _versions()
    yield _extras()
    yield _device()
    yield from _cores()
    yield _precision()
    yield _kernels()
    yield _compiler()
    yield _memory()
    yield _room("runs", runs)
    yield _room("cache", cache_folder(None))


def examine_kernels() -> Iterator[Finding]:
    """Compile the C++ kernels if need be, try every part beside PyTorch, and yield the results.

    What is found is what a report about them needs: versions, processor, compiler, and of each part
    the largest error with its bound.
    """
    yield _versions()
    yield Finding("platform", f"{platform.platform()}, {platform.machine()}")
    yield Finding("processor", _processor())
    yield _compiler()
    found = renewed()
    yield _kernels()
    if found.path is None:
        return
    yield Finding("file", f"{found.path}, SHA-256 {sha256_of(found.path)[:16]}")
    for part, tried in check(found.path).findings.items():
        value = "" if tried.error is None else f"error {tried.error:.2g} of {tried.bound:.2g}; "
        words = f"{value}{tried.elapsed_s:.2f} s" + (f"; {tried.fault}" if tried.fault else "")
        mend = "PyTorch does that here; send these lines to the project." if tried.fault else ""
        yield Finding(part, words, fine=not tried.fault, mend=mend, value=tried.error)


def _processor() -> str:
    """Return the processor's name and those of its instructions that tell libraries apart."""
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    flags = [name for name, there in has.items() if there is True]
    return f"{processor_name()}; {torch.backends.cpu.get_cpu_capability()}; {' '.join(flags)}"


def _versions() -> Finding:
    names = ("assay", "torch", "numpy", "tokenizers", "safetensors", "pydantic")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return Finding("versions", f"Python {platform.python_version()}, {versions}")


def _extras() -> Finding:
    there = [extra for extra, module in _EXTRAS.items() if util.find_spec(module)]
    absent = [f'pip install "assay[{extra}]"' for extra in _EXTRAS if extra not in there]
    found = f"installed: {', '.join(there) or 'none'}"
    return Finding("extras", found + (f"; others by {', '.join(absent)}" if absent else ""))


def _device() -> Finding:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return Finding("device", f"CUDA device {name}, taken by default", value=name)
    if torch.backends.mps.is_available():
        return Finding("device", "Apple GPU (mps), taken by default", value="mps")
    if torch.version.cuda:
        return Finding(
            "device",
            f"none, though this PyTorch is built for CUDA {torch.version.cuda}",
            fine=False,
            mend="run nvidia-smi: a driver may be missing or too old. Training uses the CPU.",
            value="cpu",
        )
    return Finding("device", "the CPU; no GPU, and a PyTorch built without one", value="cpu")


def _cores() -> Iterator[Finding]:
    """Compare one thread with all: less gain than cores means that somebody else uses them."""
    threads, cores = torch.get_num_threads(), len(_usable_cores())
    rate = matmul_rate(torch.device("cpu"), autocast=False)
    words = f"{threads} threads on {cores} usable cores: {rate / 1e9:,.0f} GFLOP/s in float32"
    yield Finding(
        "threads",
        words,
        fine=threads <= cores,
        mend="" if threads <= cores else f"set OMP_NUM_THREADS={cores}, or fewer.",
        value=rate,
    )
    if threads == 1:
        return
    torch.set_num_threads(1)
    try:
        alone = matmul_rate(torch.device("cpu"), autocast=False)
    finally:
        torch.set_num_threads(threads)
    gain = rate / alone
    idle = gain >= 1 + _FAIR_SHARE * (min(threads, cores) - 1)
    yield Finding(
        "gain",
        f"{gain:.1f} times the speed of one thread",
        fine=idle,
        mend=""
        if idle
        else (
            "another program uses the cores, or they share one unit. Threads that wait for each "
            "other on a busy core can be 5 to 50 times slower than one: stop the other program, or "
            "set OMP_NUM_THREADS=1."
        ),
        value=gain,
    )


def _usable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _precision() -> Finding:
    plan = resolve_plan(decode(TrainConfig, {}))
    fp32, bf16 = (matmul_rate(plan.device, autocast=autocast) for autocast in (False, True))
    ratio = bf16 / fp32
    which = "bfloat16 is taken" if plan.autocast else "float32 is taken"
    if plan.device.type == "cpu" and ratio > 1:
        which = "both are timed at the start of a long run, and the faster one taken"
    return Finding(
        "bf16",
        f"bfloat16 multiplies at {ratio:.2g} times the rate of float32; {which}",
        value=ratio,
    )


def _kernels() -> Finding:
    found = at_hand()
    if found is None:
        words = (
            "not compiled yet; whoever first needs them waits half a minute, if there is a compiler"
        )
        return Finding("kernels", words, value=False)
    if found.library is None:
        mend = "mend that, then run `assay doctor --kernels`; until then PyTorch computes, slower."
        return Finding("kernels", found.note, fine=False, mend=mend, value=False)
    if found.faults:
        wrong = "; ".join(
            f"{part} failed its self-check ({why})" for part, why in found.faults.items()
        )
        mend = "PyTorch does that. `assay doctor --kernels` prints what a report about it needs."
        return Finding("kernels", f"{found.note}; {wrong}", fine=False, mend=mend, value=True)
    words = f"{found.note}; checked beside PyTorch; they train and write text on the CPU"
    if build.runs("AMX") and found.library.assay_bf16_products() < _IN_TILES:
        words = f"{words}; this processor has tiles (AMX), which they do not use"
        mend = "a newer compiler may know them (GCC 11, Clang 12), or the system keeps them back."
        return Finding("kernels", words, fine=False, mend=mend, value=True)
    return Finding("kernels", words, value=True)


def _compiler() -> Finding:
    compiler = cxx.find_compiler()
    if compiler is None:
        return Finding(
            "compiler",
            "no C++ compiler; torch.compile is off, and so are C++ kernels that no wheel brought",
            fine=False,
            mend="install one (Debian: apt install g++; macOS: xcode-select --install), or leave "
            "it: results are the same, to rounding.",
        )
    try:
        version = cxx.version_of(compiler).partition("\n")[0]
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "compiler",
            f"{compiler} does not say what it is: {error}",
            fine=False,
            mend="give CXX the command of a C++ compiler, such as 'ccache g++', or unset it.",
            value=compiler,
        )
    return Finding(
        "compiler", f"{compiler} ({version}); long runs may use torch.compile", value=compiler
    )


def _memory() -> Finding:
    free = free_bytes(torch.device("cpu"))
    if free is None:
        return Finding("memory", "this system does not tell how much is free")
    enough = free >= _MEMORY
    mend = "" if enough else "close other programs; `assay count` tells what a model needs."
    return Finding("memory", f"{free / 2**30:.1f} GiB free", enough, mend, value=free)


def _room(name: str, folder: Path) -> Finding:
    """Look at the disk under a folder that may not be there yet, and try to write."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"assay")
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(
            f"{name}_folder",
            f"{folder} cannot be written: {why}",
            fine=False,
            mend="give permission, or choose another folder (--runs; ASSAY_CACHE for texts).",
            value=free,
        )
    enough = free >= _ROOM
    mend = "" if enough else "make room, or choose another disk (--runs; ASSAY_CACHE for texts)."
    return Finding(
        f"{name}_folder", f"{folder}: {free / 2**30:.1f} GiB free", enough, mend, value=free
    )
