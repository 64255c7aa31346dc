"""Optimizers that are made without loading PyTorch's compiler.

`torch.optim.Optimizer` keeps its compiler from tracing how parameters are taken in, and loads it to
say so: seconds, in each process that trains, whether or not anything is compiled.
"""

from inspect import unwrap

from torch.optim import Optimizer


class Uncompiled:
    """First among the bases of an optimizer; not to be traced by `torch.compile`."""

    add_param_group = unwrap(Optimizer.add_param_group)
