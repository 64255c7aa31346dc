"""Ctrl-C, SIGTERM, a closed terminal: once is "save and stop after this step", twice is "now"."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

import typer

_SIGNALS = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not everywhere
    if (number := getattr(signal, name, None)) is not None
]


class Stopped(BaseException):
    """A signal where nothing has to be saved, or the second one; it unwinds as Ctrl-C does.

    Not a KeyboardInterrupt, which typer takes for its own and ends without a word.

    Attributes:
        status: The exit status it stands for.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Unwinding:
    """While entered, signals that would end the process where it stands raise `Stopped` instead.

    So that temporary files go. An import may swallow what is raised in it, or fail of it: whoever
    catches something else asks for the status. A second signal ends the process at once.

    Attributes:
        status: The exit status of the signal that came, or 0.
        done: To be set when nothing is left to unwind; a first signal after that comes too late.
    """

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():  # a process that is ending does so in peace
            signal.signal(number, signal.SIG_IGN if self.status else handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.status:
            os.write(sys.stderr.fileno(), b"assay: interrupted.\n")
            os._exit(128 + number)
        if self.done:
            return
        self.status = 128 + number
        raise Stopped(number)


class Interrupts:
    """While it is entered, the first signal is noted and the second raises `Stopped`.

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
            raise Stopped(signal.SIGINT)
        self.status = 128 + number
        typer.echo("\nassay: saving after this step; once more to stop at once.", err=True)
