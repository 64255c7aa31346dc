"""Ctrl-C, SIGTERM, a closed terminal: once is "save and stop after this step", twice is "now"."""

import signal
from types import FrameType, TracebackType
from typing import Self

import typer

_SIGNALS = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not everywhere
    if (number := getattr(signal, name, None)) is not None
]


class Interrupts:
    """While it is entered, the first signal is noted and the second raises KeyboardInterrupt.

    Attributes:
        status: The exit status the noted signal stands for, or 0.
    """

    def __init__(self) -> None:
        self.status = 0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def noted(self) -> bool:
        """Return whether a signal came."""
        return self.status != 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted():
            raise KeyboardInterrupt
        self.status = 128 + number
        typer.echo("\nassay: saving after this step; once more to stop at once.", err=True)
