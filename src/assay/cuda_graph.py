"""Work of fixed shape on a CUDA device, recorded once as a graph and replayed in one call.

Telling a GPU what to do takes longer than doing it where a model is small. What is recorded reads
and writes the same memory each time, so its input is copied there first. On other devices the same
work runs as it is written, which is how it is tested.
"""

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

T = TypeVar("T")
_WARM_UP = 3  # before a recording, in which libraries take the memory they need


@final
class CudaGraph(Generic[T]):
    """Work without input: what it reads, it finds where it was."""

    def __init__(self, work: Callable[[], T], device: torch.device) -> None:
        """Do the work some times and record it; it must not depend on how often it was done."""
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type != "cuda":
            return
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = work()

    def __call__(self) -> T:
        """Do the work; the next call writes where the result is."""
        if self._graph is None:
            return self._work()
        self._graph.replay()
        return self._result


@final
class GraphedCallable(Generic[T]):
    """Work on a tensor, recorded for the shape that it has."""

    def __init__(self, work: Callable[[Tensor], T]) -> None:
        self._work = work
        self._given: Tensor | None = None
        self._recording: CudaGraph[T] | None = None

    def __call__(self, given: Tensor) -> T:
        """Do the work; the next call writes where the result is."""
        if self._given is None or self._recording is None or self._given.shape != given.shape:
            self._given = given.clone()
            self._recording = CudaGraph(partial(self._work, self._given), given.device)
        else:
            self._given.copy_(given, non_blocking=True)
        return self._recording()
