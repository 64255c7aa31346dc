"""The kernels, loaded: as a wheel brought them, or compiled at first use into the user's cache.

The library is linked without an OpenMP of its own and takes those symbols from the one PyTorch has
loaded: one pool of threads, whose number `torch.set_num_threads` sets. Without OpenMP it has
threads of its own.

A library is used only for what it did right in a child process on this very processor
(`native/selfcheck.py`); PyTorch does the rest. A library that another user may have put there is
not opened at all.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import multiprocessing
import os
import platform
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from ctypes import CDLL, RTLD_GLOBAL
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import torch

from assay.data.cache import cache_folder, find_fault, open_entry
from assay.disk import check_owner, read_json, sha256_of
from assay.errors import AssayError
from assay.native import abi
from assay.native import compiler as cxx

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
_PATIENT_S = 900
_WAIT_S = 20 + cxx.COMPILE_S
"""For another process that compiles them: as long as it may take, and a little."""
_AGAIN_S = 24 * 3600
"""After which a compiler that failed is tried again unasked."""
PROGRAM = "assay.engine.kernel_parts"
"""What a child process runs to check the kernels: by name, since it trains and decodes."""
_CHECKED_BY = ("abi.py", "selfcheck.py", "../engine/kernel_parts.py")
_PASSING = ("MemoryError", "SIGKILL")
"""Signs of faults that are not the library's: no memory, or killed. The next one looks again."""
_CANNOT = (OSError, AssayError, subprocess.SubprocessError)

Part = Literal[
    "library",
    "train_fp32",
    "train_bf16",
    "adamw",
    "muon_fp32",
    "muon_bf16",
    "decode_fp32",
    "decode_bf16",
    "decode_int8",
]
"""What the kernels do, and what PyTorch does in their place where they do it wrong."""


@final
@dataclass(frozen=True, slots=True)
class Kernels:
    """What became of the kernels on this machine.

    Attributes:
        library: None where there is none.
        note: In a few words, what it is or why it is not there.
        faults: Of each part that failed its self-check: how.
        path: The file, if there is one.
    """

    library: CDLL | None
    note: str
    faults: Mapping[Part, str] = field(default_factory=dict)
    path: Path | None = None

    def lacks(self, part: Part) -> str | None:
        """Return why PyTorch has to do a part, in a few words, or None."""
        if self.library is None:
            return self.note
        if (fault := self.faults.get(part)) is None:
            return None
        return f"the C++ kernels failed their self-check of {part} on this processor ({fault})"


@functools.cache
def kernels() -> Kernels:
    """Return the kernels, compiled now (half a minute) if neither wheel nor cache has them."""
    found = _candidate or _find()
    if multiprocessing.parent_process() is None:  # a worker's parent has said it
        _tell(found)
    return found


def _tell(found: Kernels) -> None:
    """Say in a sentence what PyTorch has to do in place of the kernels, and why."""
    if found.library is None:
        _log.warning("PyTorch computes, which is slower: %s.", found.note)
    elif found.faults:
        wrong = ", ".join(f"{part} ({fault})" for part, fault in found.faults.items())
        _log.warning(
            "PyTorch takes over from the C++ kernels what failed their self-check on this "
            "processor: %s. `assay doctor --kernels` tells more.",
            wrong,
        )


_candidate: Kernels | None = None


def take(candidate: Kernels | None) -> None:
    """Let this process use these, as the self-check does, or look for them anew."""
    global _candidate
    _candidate = candidate
    kernels.cache_clear()


def renewed() -> Kernels:
    """Return the kernels, compiled with patience and checked again, whatever was found before."""
    take(_find(renew=True))
    return kernels()


def _find(*, renew: bool = False) -> Kernels:
    """Return the first shipped library without a fault, or else compile one."""
    first: Kernels | None = None
    for path in _shipped():
        found = _checked(path, renew=renew)
        if found.library is not None and not found.faults:
            return found
        first = first or found
    if first is not None:
        return first
    compiler = cxx.find_compiler()
    if compiler is None:
        return Kernels(None, "no C++ compiler was found (g++ or clang++)")
    try:
        return _checked(_built(compiler, renew=renew) / _LIBRARY, renew=renew)
    except _CANNOT as error:
        return Kernels(None, _why(compiler, error))


def _why(compiler: str, error: Exception) -> str:
    """Return in a few words why the kernels could not be compiled."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        return f"{compiler} could not compile them ({lines[0].strip()[:300]})"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{compiler} did not end within {error.timeout:.0f} s"
    return f"they could not be built or loaded ({error})"


def _shipped() -> Iterator[Path]:
    """Yield what the wheel brought that this processor can run, best first.

    Whoever wrote the wheel's folder wrote this file too, so it needs no other trust.
    """
    for name in _runnable():
        path = cxx.FOLDER / f"kernels-{name}.so"
        if path.is_file():
            yield path


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
    compiler = cxx.find_compiler()
    if next(_shipped(), None) is not None or compiler is None:
        return kernels()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        entry = _entry(compiler)
        if find_fault(entry) is None or _failure(entry) is not None:
            return kernels()
    return None


# --- checked and loaded


def _checked(path: Path, *, renew: bool) -> Kernels:
    """Load a library once a child process has shown what of it is right on this processor.

    Raises:
        OSError: If the file is not to be trusted.
    """
    from assay.native import selfcheck  # which imports what asks for the kernels

    digest = _digest(path)
    kept = _private_folder() / f"{digest}.json" if digest else None
    faults = None if renew or kept is None else _kept_faults(kept)
    if faults is None:
        try:
            faults = selfcheck.check(path).faults
        except OSError as error:  # no other process is to be had
            return Kernels(None, f"the C++ kernels could not be checked ({error})", path=path)
        if not any(sign in fault for fault in faults.values() for sign in _PASSING):
            _keep(kept, {"faults": faults})
    if (fault := faults.get("library")) is not None:
        return Kernels(None, f"the C++ kernels failed their self-check ({fault})", path=path)
    try:
        return loaded(path, faults)
    except OSError as error:
        return Kernels(None, f"{path} could not be loaded ({error})", path=path)


def loaded(path: Path, faults: Mapping[Part, str] | None = None) -> Kernels:
    """Load a library and say what it is.

    Raises:
        OSError: If it is not one of these kernels, of this version and for this machine.
    """
    _share_openmp()
    library = abi.declare(CDLL(_opened(path)))
    threads = ctypes.c_int32()
    library.assay_threads(torch.get_num_threads(), ctypes.byref(threads))
    bits = 32 * library.assay_lanes()
    bf16 = ("float32", "vectors", "tiles")[library.assay_bf16_products()]
    told = f"vectors of {bits} bits, bfloat16 multiplied in {bf16}, threads: {threads.value}"
    return Kernels(library, f"C++ kernels, {told}", faults or {}, path)


def _opened(path: Path) -> str:
    """Return a name by which a library can be loaded, and nobody can exchange it before that.

    Raises:
        OSError: If it is not of this user, or of root, alone.
    """
    if path.parent == cxx.FOLDER:
        return str(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    check_owner(path, os.fstat(descriptor))
    name = f"/proc/self/fd/{descriptor}"  # open as long as the process: the loader knows it by name
    return name if os.path.exists(name) else str(path)


def _private_folder() -> Path:
    """Return the folder of compiled kernels, which nobody else can write.

    Raises:
        OSError: If it is somebody else's, or cannot be made.
    """
    folder = cache_folder(None) / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.geteuid() and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder.chmod(0o700)
        found = folder.stat()
    check_owner(folder, found)
    return folder


def _digest(path: Path) -> str | None:
    """Return a name for the verdict on a library; None where none can be kept.

    It stands for all that the verdict depends on: the library's bytes, the processor, PyTorch,
    which has the threads and is the oracle, and the check itself.
    """
    try:
        told = [sha256_of(path), _processor(), torch.__version__]
        told += [sha256_of(cxx.FOLDER / name) for name in _CHECKED_BY]
        _private_folder()
    except (OSError, ValueError):
        return None
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _kept_faults(kept: Path) -> dict[Part, str] | None:
    """Return the faults that an earlier process found, or None if it left no word of them."""
    try:
        faults = read_json(kept, 1 << 16)["faults"]
        check_owner(kept, kept.stat())
        return faults if isinstance(faults, dict) else None
    except (OSError, ValueError, KeyError):
        return None


def _keep(kept: Path | None, content: object) -> None:
    """Write a small file for later processes; one that cannot be written costs them a check."""
    if kept is None:
        return
    scratch = kept.with_suffix(f".{os.getpid()}")
    try:
        scratch.write_text(json.dumps(content), encoding="utf-8")
        scratch.chmod(0o600)
        scratch.replace(kept)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


# --- compiled


def _built(compiler: str, *, renew: bool) -> Path:
    """Return the folder that holds the library for this source, compiler and processor.

    Raises:
        OSError, AssayError, subprocess.SubprocessError: If it cannot be compiled, or could not be
            a short time ago.
    """
    _private_folder()
    entry, limit_s = _entry(compiler), _PATIENT_S if renew else cxx.COMPILE_S
    if not renew and (failure := _failure(entry)) is not None:
        raise AssayError(failure)
    command = cxx.command_of(compiler, cxx.version_of(compiler), cxx.native())

    def build(folder: Path) -> None:
        _log.warning("compiling the C++ kernels for this processor, once: about half a minute")
        cxx.compile_to(folder / _LIBRARY, command, limit_s)
        (folder / _LIBRARY).chmod(0o700)

    try:
        open_entry(entry, build, what="the compiled C++ kernels", patience_s=_WAIT_S)
    except subprocess.SubprocessError as error:
        _keep(_failed(entry), {"why": _why(compiler, error), "time": time.time()})
        raise
    _failed(entry).unlink(missing_ok=True)
    check_owner(entry, entry.stat())
    return entry


def _failed(entry: Path) -> Path:
    return entry.with_suffix(".failed.json")


def _failure(entry: Path) -> str | None:
    """Return why compiling failed in the last day, unless it was not tried or succeeded."""
    try:
        kept = read_json(_failed(entry), 1 << 16)
        if 0 <= time.time() - float(kept["time"]) < _AGAIN_S:
            return f"{kept['why']}; `assay doctor --kernels` tries again"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _entry(compiler: str) -> Path:
    version = cxx.version_of(compiler)
    command = cxx.command_of(compiler, version, cxx.native())
    sources = (path.read_text(encoding="utf-8") for path in (*cxx.HEADERS, *cxx.SOURCES))
    told = (*sources, version, *command[1:], _processor())
    key = hashlib.sha256("\0".join(told).encode()).hexdigest()
    return cache_folder(None) / "kernels" / key


@functools.cache
def _share_openmp() -> None:
    """Let what is loaded from now on see PyTorch's OpenMP, which it keeps to itself on Arm."""
    with contextlib.suppress(OSError):  # no Linux, or no such library
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        paths = sorted({line.split()[-1] for line in lines if "libgomp" in line})
        of_torch = [path for path in paths if "torch" in path]
        for path in of_torch or paths:
            CDLL(path, mode=RTLD_GLOBAL | os.RTLD_NOLOAD)


def _processor() -> str:
    """Return what the compiler's `native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return f"{platform.machine()} {platform.processor()}"
    told = (line for line in lines if line.lower().startswith(("model name", "flags", "features")))
    return "\n".join(sorted(set(told)))
