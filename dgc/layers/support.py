"""What tensors and modules allow: the conditions on which dgc.layers.dispatch decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from dgc.kernels import gpu
from dgc.kernels.cpu import train_passes
from dgc.layers.own_autocast import compute_dtype


def can_fuse(x: Tensor) -> bool:
    """Whether functions with a backward of their own may be used:
    tracing and torch.func take the plain operations.
    """
    if isinstance(x, torch.fx.Proxy):  # the inference engine reads the network
        return False
    return not (
        torch.compiler.is_compiling()
        or x.device.type == "meta"
        or torch._C._are_functorch_transforms_active()
    )


def splittable(norm: nn.Module | None, x_BCHW: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether `norm` is the plain BatchNorm2d
    that can be taken apart (no SyncBatchNorm, subclass or hook).
    """
    # exactly BatchNorm2d: a subclass may compute anything; a hook expects the module to be called;
    # momentum None is a cumulative mean, which `norm.move_on` does not make
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and (norm.momentum is not None or not norm.training)
        and not hooked(norm)
        and x_BCHW.dim() == 4
        and x_BCHW.shape[1] == norm.num_features
        and x_BCHW.numel() > x_BCHW.shape[1]
    )


def trains_on_batch(norm: nn.Module | None) -> bool:
    """Whether `norm` is a plain BatchNorm2d that takes its batch's moments and follows them."""
    return (
        # exactly what norm.move_on can do: batch moments, and running ones that follow by momentum
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def is_supported(x_BCHW: Tensor, *others: Tensor) -> bool:
    """Whether the C++ kernels were built and take these:
    float32 on the CPU, planes as they come, no autocast.
    """
    return (
        train_passes.is_nchw_contiguous(x_BCHW)
        and train_passes.is_cpu_float32(x_BCHW, *others)
        and not torch.is_autocast_enabled("cpu")
    )


def norm_tensors(norm: nn.BatchNorm2d) -> list[Tensor]:
    """What a BatchNorm works with, but for the moments of a batch."""
    # by its dicts: what PyTorch does to find an attribute takes longer than all the rest that a
    # layer asks before it computes
    found: list[Tensor | None] = [norm._parameters["weight"], norm._parameters["bias"]]
    if not norm.training:  # in training the moments are of the batch, in the dtype of the weight
        found += [norm._buffers["running_mean"], norm._buffers["running_var"]]
    return [t for t in found if t is not None]


def common_dtype(x: Tensor, parameters: Sequence[Tensor]) -> torch.dtype | None:
    """What input and parameters are computed in, where that is one dtype; autocast counted in."""
    dtype = compute_dtype(x)
    return dtype if all(t.dtype == dtype for t in parameters) else None


def common_device(x: Tensor, parameters: Sequence[Tensor]) -> str:
    """The kind of device that all are on; 'several' where they are not on one."""
    device = x.device
    # whole devices first: their comparison makes no text
    if all(t.device == device for t in parameters):
        return device.type
    return device.type if all(t.device.type == device.type for t in parameters) else "several"


def hooked(m: nn.Module) -> bool:
    return bool(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
    )


def moments_native(x: Tensor, dtype: torch.dtype, *, kernels: bool) -> bool:
    """Whether the C++ kernels compute the moments of x in `dtype`."""
    return (
        kernels
        and train_passes.is_cpu_float32(x)
        and train_passes.is_nchw_contiguous(x)
        and dtype == torch.float32
    )


def triton_for(x: Tensor, *, triton: bool) -> bool:
    """Whether the GPU's kernels compute what stands around a layer, where they were asked for."""
    if not triton or not can_fuse(x):  # in a traced graph PyTorch's own stand around the operator
        return False
    on = x.is_cuda or gpu.interpreted()
    return on and gpu.installed() and x.dtype != torch.float64


def operators_for(x: Tensor, norms: Sequence[nn.Module]) -> bool:
    """Whether a compiler may be shown a layer of the GPU's kernels as operators."""
    if not torch.compiler.is_compiling() or x.device.type == "meta" or not gpu.INSTALLED:
        return False
    on = x.is_cuda or gpu.INTERPRETED
    return on and x.dtype != torch.float64 and all(splittable(norm, x) for norm in norms)


def gpu_functions(x: Tensor, *, triton: bool) -> bool:
    """Whether the functions for a GPU, in PyTorch's own operations, compute what is fused."""
    return x.is_cuda and not triton
