"""Memory counted and not looked up: the same number on every machine, every time.

The memory of a process says little of a pass: allocators keep what is freed. Here every tensor that
an operation makes is counted from its making to its release, and every tensor that is kept for a
backward pass is counted once. What a kernel takes and frees within one operation is not seen.
"""

import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Loss = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a forward and backward pass hold beside the weights, in bytes.

    Attributes:
        saved: Kept from forward for backward, inputs among it.
        forward_peak: Most that was held at once in forward, with what was kept.
        peak: The same over forward and backward, the gradients of the weights included.
    """

    saved: int
    forward_peak: int
    peak: int


def training_memory(module: nn.Module, loss: Loss) -> Memory:
    """Count `loss()` and its backward pass; the gradients of `module` are dropped before and after.

    Peaks leave out what existed before, such as weights and inputs.
    """
    module.zero_grad(set_to_none=True)
    live = Live()
    gc.collect()
    with live:
        found, saved = _with_saved(module, loss)
        forward_peak = live.peak
        torch.autograd.backward(found)
    module.zero_grad(set_to_none=True)
    return Memory(saved=saved, forward_peak=forward_peak, peak=live.peak)


def _with_saved(module: nn.Module, loss: Loss) -> tuple[Tensor, int]:
    weights = {_address(tensor) for tensor in (*module.parameters(), *module.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    return value, sum(size for address, size in found.items() if address not in weights)


def _address(tensor: Tensor) -> int:
    """Return where its storage lies: no two that live at once share it."""
    return tensor.untyped_storage().data_ptr()


@final
class Live(TorchDispatchMode):
    """Bytes of the storages made under this mode and not yet released, and their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operation and count what it made."""
        given = {_address(t) for t in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        made = {_address(t): t.untyped_storage() for t in _tensors(result)}
        for address, storage in made.items():
            if address not in given:  # not a view, nor written in place
                self._live += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self._live)
        return result

    def _release(self, size: int) -> None:
        self._live -= size


def _tensors(tree: object) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
