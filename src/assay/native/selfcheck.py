"""What the kernels compute on this very processor beside PyTorch, tried in a child process.

A library that was just compiled or installed may crash, hang or be wrong on a processor or with a
compiler that nobody tried: GCC 12 once dropped the stores to a tile configuration, and every first
training on such a machine died. So nothing calls a library before a child process has: all kinds
of products at ragged sizes, a training step of models of each family, after one that was not
finite, both optimizers, and decoding. What crashes, hangs or differs is a fault of that part, and
PyTorch does the part (`native/build.py`).
"""

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final, get_args

from assay.native.build import PROGRAM, Part

_CPU_S = 30
"""Processor time after which a child hangs, of a second that it needs."""
_WALL_S = 90.0
"""The same by the clock, for threads that wait for each other without end."""


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one part.

    Attributes:
        error: The largest found; None where a part ended before it told.
        bound: Of it.
        fault: What is wrong, in a few words; empty if nothing is.
        elapsed_s: Wall-clock time.
    """

    error: float | None = None
    bound: float | None = None
    fault: str = ""
    elapsed_s: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of all parts that this processor has."""

    findings: dict[Part, Finding] = field(default_factory=dict)

    @property
    def faults(self) -> dict[Part, str]:
        """What is wrong, by part."""
        return {part: found.fault for part, found in self.findings.items() if found.fault}


def check(path: Path) -> Verdict:
    """Try a library in child processes; about a second where nothing is wrong.

    A part that ends its process is a fault, and the parts after it are tried in another one. A part
    that hangs is a fault of the whole: to wait for each part would take too long. On Linux the
    first child is forked, which spares it PyTorch's import; what goes wrong there is believed only
    if it goes wrong in a new process too, which inherits nothing.
    """
    starts = [_spawned] if sys.platform != "linux" else [_forked, _spawned]
    for start in starts:
        verdict = _tried(path, start)
        if not verdict.faults:
            break
    return verdict


def _tried(path: Path, start: "Callable[[Path, Sequence[Part]], _Child]") -> Verdict:
    findings: dict[Part, Finding] = {}
    todo = list(get_args(Part))
    while todo:
        with start(path, todo) as child:
            for part, found in child.findings():
                todo.remove(part)
                if found is not None:
                    findings[part] = found
            if not todo:
                break
            fault = child.fault()
        broken = todo.pop(0)
        findings[broken] = Finding(fault=fault)
        if child.hung:
            findings["library"] = Finding(fault=f"{broken}: {fault}")
        if findings["library"].fault:
            break
    return Verdict(findings)


# --- child processes


@final
class _Child:
    """A process that tries parts one after another and writes a line of JSON about each."""

    def __init__(self, pid: int, lines: int) -> None:
        self._pid, self._lines = pid, lines
        self._began = time.monotonic()
        self._status: int | None = None
        self.hung = False

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._end(kill=True)
        os.close(self._lines)

    def findings(self) -> Iterator[tuple[Part, Finding | None]]:
        """Yield what the child finds, until it ends or hangs; None of what is not to be had."""
        text = b""
        while (more := self._read()) != b"":
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                part, found = json.loads(line)
                yield part, None if found is None else Finding(**found)
        self._end(kill=self.hung)

    def fault(self) -> str:
        """Return in a few words how the child ended, before all was tried."""
        assert self._status is not None
        if self.hung:
            return f"no end within {_WALL_S:.0f} s, or {_CPU_S} s of processor time"
        if os.WIFSIGNALED(self._status):
            return f"ended by {signal.Signals(os.WTERMSIG(self._status)).name}"
        return f"ended with exit status {os.waitstatus_to_exitcode(self._status)}"

    def _read(self) -> bytes:
        left = self._began + _WALL_S - time.monotonic()
        if not select.select([self._lines], [], [], max(0.0, left))[0]:
            self.hung = True
            return b""
        return os.read(self._lines, 1 << 16)

    def _end(self, *, kill: bool) -> None:
        if self._status is not None:
            return
        if kill:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._status = os.waitpid(self._pid, 0)[1]
        self.hung |= os.WIFSIGNALED(self._status) and os.WTERMSIG(self._status) == signal.SIGXCPU


def _forked(path: Path, parts: Sequence[Part]) -> _Child:
    """Fork a child.

    It works on a thread of its own, for which OpenMP starts new threads; those of the parent are
    not there, and the thread that forked would wait for them. Nor has a new thread any of the
    parent's modes: autocast, inference, a default device.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on: the parent has threads
        pid = os.fork()
    if pid == 0:
        try:
            _contain()
            program = importlib.import_module(PROGRAM)
            thread = threading.Thread(target=program.run, args=(path, parts, writing))
            thread.start()
            thread.join()
        finally:
            os._exit(0)
    os.close(writing)
    return _Child(pid, reading)


def _spawned(path: Path, parts: Sequence[Part]) -> _Child:
    """Start a new interpreter."""
    reading, writing = os.pipe()
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from assay.native import selfcheck\n"
        f"selfcheck.run({str(path)!r}, {list(parts)!r}, {writing})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writing,),
    )
    os.close(writing)
    process.returncode = 0  # it is waited for by its number
    return _Child(process.pid, reading)


def run(path: str, parts: Sequence[Part], lines: int) -> None:
    """Try parts in this process, which is a new one, and write what was found."""
    _contain()
    importlib.import_module(PROGRAM).run(Path(path), parts, lines)


def _contain() -> None:
    """Let a child that fails do so quietly: without a core file, a trace, or an end."""
    import resource

    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    faulthandler.disable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, _CPU_S)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(
            limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
