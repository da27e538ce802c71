"""What a user asks a layer to compute with. Which algorithm that leads to is decided in
dgc.layers.dispatch.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

from torch import nn

from dgc.errors import ArgumentError, OlderNameWarning, older_name
from dgc.kernels import gpu
from dgc.kernels.cpu import library, train_passes

Backend = Literal["auto", "native", "plain", "masked", "gathered", "triton"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class HasBackend(nn.Module):
    """A module that can be computed in more than one way; they differ in speed and memory, and in
    the last bits, but not in what they mean.

    `backend`: 'auto' takes the C++ kernels where they can work, else plain PyTorch; 'native' is the
    C++ kernels or an error; 'plain' is PyTorch alone; 'masked' and 'gathered' are single algorithms
    of a dynamic convolution, for comparison; 'triton' is the kernels for GPUs or an error.
    """

    backend: Backend = "auto"

    @property
    def kernels(self) -> bool:
        """Whether the C++ kernels may be used."""
        return self.backend in ("auto", "native")

    @property
    def triton(self) -> bool:
        """Whether the GPU's kernels were asked for."""
        return self.backend == "triton"


def set_backend(model: nn.Module, backend: Backend) -> None:
    """Let all layers of this library in `model` compute with one backend:
    auto, native, plain, masked, gathered or triton.
    """
    check_backend(backend)
    for module in model.modules():
        if isinstance(module, HasBackend):
            module.backend = backend


def chosen_backend(backend: Backend, method: Backend | None) -> Backend:
    """What a layer was given, under today's name or the older one. Raises ArgumentError."""
    if method is not None:
        warnings.warn(older_name("method=", "backend="), OlderNameWarning, stacklevel=3)
    check_backend(method or backend)
    return method or backend


def check_backend(backend: object) -> None:
    """Raise ArgumentError for a word that is none."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend={backend!r}: one of {', '.join(BACKENDS)}")


def unavailable(backend: Backend, device: str = "cpu") -> str:
    """Why a backend cannot be used at all on this kind of device, in words; "" where it can."""
    if backend == "native":
        if device != "cpu":
            return f"the C++ kernels work on the CPU, and the device is {device}"
        if not train_passes.available():
            return f"the C++ kernels are not there ({library.describe().get('why_not')})"
    if backend == "triton":
        if not gpu.installed():
            return "Triton is not installed (PyTorch for CUDA brings it)"
        if device != "cuda" and not gpu.interpreted():
            return f"Triton kernels work on a GPU, and the device is {device}"
    return ""


def set_method(model: nn.Module, backend: Backend) -> None:
    """The older name of `set_backend`."""
    warnings.warn(older_name("dgc.set_method", "dgc.set_backend"), OlderNameWarning, stacklevel=2)
    set_backend(model, backend)
