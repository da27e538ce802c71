"""How a module computes, where it has more than one way: they differ in speed and memory, not in
what comes out.
"""

from __future__ import annotations

from torch import nn

from dgc.errors import ArgumentError
from dgc.layers.algorithms.functional import METHODS, Method


class HasMethod(nn.Module):
    """`method`: 'auto' takes the C++ kernels where they can work, else plain PyTorch; 'plain' is
    PyTorch alone; 'masked' and 'gathered' are single ways of a dynamic convolution, for comparison.
    """

    method: Method = "auto"

    @property
    def kernels(self) -> bool:
        """Whether the C++ kernels may be used."""
        return self.method == "auto"


def set_method(model: nn.Module, method: Method) -> None:
    """Let all layers of this library in `model` compute in one way: auto, plain, masked or
    gathered.
    """
    if method not in METHODS:
        raise ArgumentError(f"method={method!r}: one of {', '.join(METHODS)}")
    for module in model.modules():
        if isinstance(module, HasMethod):
            module.method = method
