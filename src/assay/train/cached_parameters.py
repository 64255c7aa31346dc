"""The parameters of a model, listed once.

A step of a small model needs them a few times, and each time to go through its modules would take
a hundredth of the step.
"""

import weakref
from itertools import chain
from operator import is_
from typing import Any, final

from torch import nn


@final
class _Listed:
    """A model's parameters, and what stood in its modules when they were listed.

    It holds no reference to the model itself, which it would keep alive.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        modules = list(model.modules())
        self._places: list[dict[str, Any]] = [m._parameters for m in modules]
        self._places += [m._modules for m in modules]
        self._held = self._found()

    def _found(self) -> list[object]:
        return list(chain.from_iterable(map(dict.values, self._places)))

    def hold(self) -> bool:
        """Return whether no parameter or module was put in, taken out or replaced since."""
        found = self._found()
        return len(found) == len(self._held) and all(map(is_, found, self._held))


_LISTED: weakref.WeakKeyDictionary[nn.Module, _Listed] = weakref.WeakKeyDictionary()


def cached_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return `list(model.parameters())`, listed anew only where that changed."""
    listed = _LISTED.get(model)
    if listed is None or not listed.hold():
        listed = _LISTED[model] = _Listed(model)
    return listed.parameters
