"""A measurement in a process of its own, so that its peak of memory is its own."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_PRELOADED = ["torch", "torch._dynamo", "assay.train.loop", "assay.engine.device", "assay.count"]
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def measured_apart(work: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """Return what `work` returns in a fresh process that has imported torch and done nothing.

    Raises:
        RuntimeError: If the process died, such as for want of memory, or `work` raised.
    """
    forking = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forking else "spawn")
    if forking:
        context.set_forkserver_preload(_PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        found, failed = ours.recv()
    except EOFError:
        found, failed = None, "the process died, perhaps for want of memory"
    process.join()
    if failed:
        raise RuntimeError(failed)
    return found


def _send(pipe: Connection, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    try:
        pipe.send((work(*arguments), ""))
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"))


def peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
