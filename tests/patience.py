"""Waiting for what happens, however slow the machine; only what hangs is given up."""

import os
import time
from pathlib import Path

HANG_S = 600
"""After so long a process is taken to hang: a hundred times what any of them needs."""
_POLL_S = 0.01


def wait_until(happened, child=None):
    """Wait until `happened()` is true, and return what it returned.

    Args:
        happened: Asked again and again.
        child: A `subprocess.Popen` that is not to end meanwhile.
    """
    deadline = time.monotonic() + HANG_S
    while not (found := happened()):
        assert child is None or child.poll() is None, "the process ended before it happened"
        assert time.monotonic() < deadline, f"not in {HANG_S} s"
        time.sleep(_POLL_S)
    return found


def catches(pid, *numbers):
    """Whether a process has handlers for all these signals; where that is not told, yes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return not Path("/proc/self/status").exists()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if "SigCgt" in line)
    return all(caught >> (number - 1) & 1 for number in numbers)


def children_of(pid):
    """Return the ids of a process's children, from /proc."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == pid:
            found.append(int(entry))
    return found
