"""What every benchmark does with its command line, and with what cannot be had here."""

import sys
from collections.abc import Callable

import torch

from assay.engine.device import resolve_plan
from assay.errors import AssayError
from assay.train.config import TrainConfig

UNAVAILABLE = (ImportError, RuntimeError, TypeError)
"""What an entrant raises that is not installed, cannot be compiled here, or has changed."""


def answered(main: Callable[[], None]) -> None:
    """Run `main`; what a user can cause is one sentence on stderr and status 2."""
    try:
        main()
    except AssayError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        sys.exit(2)


def device_of(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        ConfigError: If it is not.
    """
    return resolve_plan(TrainConfig(device=name)).device


def of_device(subject: str, device: torch.device) -> str:
    """Return the name of the results of a subject on a device."""
    return subject if device.type == "cpu" else f"{subject}-{device.type}"


def reason(error: Exception) -> str:
    """Return in a line why an entrant is absent."""
    if isinstance(error, ImportError):
        return f"not installed ({error.name})"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
