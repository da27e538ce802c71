"""DynamicGroupConv2d: BN, ReLU, gates, selection, convolution, shuffle; in the place of
nn.Conv2d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.kernels.cpu.train_passes import PassShape, is_nchw_contiguous
from dgc.layers import dispatch, gating, gpu_layer, selection, support
from dgc.layers.algorithms import dgc_conv2d
from dgc.layers.algorithms.native_layer import LayerSetting, NativeLayer
from dgc.layers.backend import Backend, HasBackend, chosen_backend
from dgc.layers.cost import Cost, conv_macs
from dgc.layers.dispatch import Dispatch
from dgc.layers.fused import FusedLayer, Setting
from dgc.layers.gate_record import GateRecord
from dgc.layers.geometry import Geometry
from dgc.layers.layer_arguments import check_arguments
from dgc.layers.norm import Moments, Normaliser, normaliser
from dgc.layers.own_autocast import compute_dtype, without_autocast


class DynamicGroupConv2d(HasBackend):
    """Dynamic group convolution (Su et al., ECCV 2020) with its own BatchNorm and ReLU in front.

    Takes (B, in_channels, H, W), returns (B, out_channels, H', W') as nn.Conv2d would. Each of
    `heads` heads computes out_channels / heads outputs from the channels that its gates select for
    that sample.

    `gate_factor` is the share of input channels that a head keeps at the end of the schedule, in
    (0, 1]. `squeeze_rate` is d in the gate network C -> C // d -> C (halved where in_channels < 80,
    as released). `norm=False` leaves out BatchNorm and ReLU: the input is then taken as it is.
    `bias=True` adds a number to each output channel, as nn.Conv2d does; the released layers have
    none.

    How many channels are off (`n_inactive`) is set from outside, see `dgc.set_progress`; it is
    saved in the buffer `inactive_channels` and mirrored in a Python int, so that no forward reads
    the device. Raises ArgumentError (a ValueError) for arguments that do not fit together.
    """

    inactive_channels: Tensor
    n_from_buffer = False  # see model_ops.counted_on_device

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        heads: int = 4,
        squeeze_rate: int = 16,
        gate_factor: float = 0.25,
        *,
        norm: bool = True,
        bias: bool = False,
        backend: Backend = "auto",
        method: Backend | None = None,  # the older name of `backend`
    ) -> None:
        super().__init__()
        # before anything is built: locals() are the arguments alone as long as nothing was assigned
        check_arguments(locals())
        self.backend = chosen_backend(backend, method)
        self.in_channels, self.out_channels, self.kernel_size = (
            in_channels,
            out_channels,
            kernel_size,
        )
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.heads, self.squeeze_rate, self.gate_factor = heads, squeeze_rate, gate_factor
        squeezed = gating.squeeze_width(in_channels, squeeze_rate)
        self.norm: nn.Module | None = nn.BatchNorm2d(in_channels) if norm else None
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.fc1 = nn.Parameter(torch.empty(heads, squeezed, in_channels))
        self.fc2 = nn.Parameter(torch.empty(heads, in_channels, squeezed))
        self.fc2_bias = nn.Parameter(torch.empty(heads, in_channels))
        # in the order of the output channels, so behind the shuffle
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("inactive_channels", torch.zeros(1))
        self.n_inactive = 0  # mirror of the buffer; the exact n of the eager path
        # a lower bound of n that changes rarely: what a compiled graph may rely on
        self.n_traced = 0
        # what the weights are called in a state dict; converted layers change it, see
        # dgc.conversion: a dense convolution's weights, in another order, must not be taken for
        # these
        self.weight_key = "weight"
        # whether the plain layer that this one stands for has BatchNorm and ReLU too
        self.baseline_has_norm = norm
        self.gate_record: GateRecord | None = None
        # a scalar; on a GPU the gates (G, B, C), which are summed for all layers at once
        self._last_gate_l1: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal (fan-out of one head for the convolution, fan-in for the gates), gate bias
        1, as released; a bias of the outputs starts at 0.
        """
        # each output is computed by one head, so the fan-out is that of a head, not of the layer
        fan_out = self.kernel_size**2 * self.out_channels // self.heads
        nn.init.normal_(self.weight, 0.0, math.sqrt(2 / fan_out))
        nn.init.normal_(self.fc1, 0.0, math.sqrt(2 / self.in_channels))
        nn.init.normal_(self.fc2, 0.0, math.sqrt(2 / self.fc2.shape[-1]))
        nn.init.ones_(self.fc2_bias)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_inactive(self, n: int, traced: int | None = None) -> None:
        """Switch the n weakest channels of each head off from the next forward on.

        `traced`, at most n, is the number that a compiled graph is specialised to (default n); see
        `set_progress`.
        """
        if not 0 <= n < self.in_channels:
            raise ArgumentError(
                f"n={n!r} inactive channels: 0 to {self.in_channels - 1} of"
                f" in_channels={self.in_channels}"
            )
        # only where it changes: a write to the buffer is a launch on a GPU
        if n != self.n_inactive:
            self.inactive_channels.fill_(float(n))
        self.n_inactive, self.n_traced = n, n if traced is None else min(traced, n)

    @property
    def gate_l1(self) -> Tensor:
        """Sum over heads of the mean over (B, C)
        of the gates of the last forward, before any was switched off.
        """
        if self._last_gate_l1 is None:
            raise ArgumentError(
                "gate_l1 was asked for before the layer's first forward; run the model on a batch"
                " first"
            )
        last = self._last_gate_l1
        return last if last.dim() == 0 else gating.gate_l1(last.transpose(0, 1))

    def forward(
        self,
        x_BCHW: Tensor,
        input_norm: nn.Module | None = None,
        input_moments: Moments | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> (B, O, H', W').

        A network may hand over what stands in front of the layer, to be kept in one copy:
        `input_norm`, a BatchNorm whose ReLU'd output is the layer's input; and `input_moments`, the
        moments of x where it has computed them already.
        """
        # at most two: a dense network may hand over the
        # BatchNorm that stands in front of the layer's own
        norms = [norm for norm in (input_norm, self.norm) if norm is not None]
        found = dispatch.dynamic(self._call(x_BCHW, norms))
        if found.algorithm in dispatch.WHOLE_LAYER:
            y_BOHW = self._whole(found, x_BCHW, norms, input_moments)
        else:
            for norm in norms:
                x_BCHW = torch.relu(norm(x_BCHW))
            y_BOHW = self._composed(found, x_BCHW)
        # last and outside of the algorithms, none of which
        # knows a bias: it is in the order of the outputs
        return y_BOHW if self.bias is None else y_BOHW + self.bias.to(y_BOHW.dtype)[:, None, None]

    @property
    def _traced(self) -> bool:
        return self.n_from_buffer or torch.compiler.is_compiling()

    @property
    def _least_inactive(self) -> int:
        return self.n_traced if self._traced else self.n_inactive

    def _call(self, x_BCHW: Tensor, norms: Sequence[nn.Module]) -> dispatch.LayerCall:
        """What decides the algorithm."""
        # a tracer must see plain operations, and of x nothing is known yet
        if not support.can_fuse(x_BCHW):
            n, found = self._least_inactive, self.triton and support.operators_for(x_BCHW, norms)
            return dispatch.LayerCall(
                self.backend, self.kernel_size, self.padding, self.in_channels, n, operators=found
            )
        # BatchNorms can be taken apart where all of them can
        split = all(support.splittable(norm, x_BCHW) for norm in norms)
        tensors: list[Tensor] = [self.fc1, self.fc2, self.fc2_bias]
        if split:
            for norm in norms:
                tensors += support.norm_tensors(cast("nn.BatchNorm2d", norm))
        return dispatch.LayerCall(
            self.backend if len(x_BCHW) else "masked",  # the others take no empty batch
            self.kernel_size,
            self.padding,
            self.in_channels,
            self._least_inactive,
            fusible=True,
            norms_split=split,
            device=support.common_device(x_BCHW, tensors),
            dtype=support.common_dtype(x_BCHW, tensors),
            nchw=is_nchw_contiguous(x_BCHW),
            pixels=math.prod(map(self.output_size, x_BCHW.shape[2:])),
            head_outputs=self.out_channels // self.heads,
        )

    def _whole(
        self,
        found: Dispatch,
        x_BCHW: Tensor,
        norms: Sequence[nn.Module],
        input_moments: Moments | None,
    ) -> Tensor:
        """The layer as one autograd function."""
        # autocast is applied by hand, once: inside an autograd function it would not see backward
        dtype = compute_dtype(x_BCHW)
        # the gates' matrices stay as they are: gates are computed in the parameters' precision
        x_BCHW = x_BCHW.to(dtype)
        with without_autocast(x_BCHW):
            if support.gpu_functions(x_BCHW, triton=self.triton):
                return self._noted(*gpu_layer.run(self, found.algorithm, norms, x_BCHW))
            chain = self._chain(x_BCHW, norms, input_moments)
            parameters = (self.weight.to(dtype), self.fc1, self.fc2, self.fc2_bias)
            given = (x_BCHW, *parameters, *(t for link in chain for t in link[:4]))  # as `tensors`
            if found.algorithm == "triton":
                outputs = self._triton(chain, *given)
            elif found.algorithm == "native":
                outputs = NativeLayer.apply(self._native_setting(x_BCHW, chain), *given)
            else:
                outputs = FusedLayer.apply(self._setting(found, chain), *given)
        return self._noted(*outputs)

    def _noted(self, y_BOHW: Tensor, l1: Tensor, selected_BGC: Tensor) -> Tensor:
        # the L1 term is an output of the function, so that its gradient comes in beside that of y
        self._last_gate_l1 = l1
        self._record(selected_BGC)
        return y_BOHW

    def _triton(self, chain: tuple[Normaliser, ...], *given: Tensor) -> Any:
        # Triton is loaded where it is used; a tracer sees operators, and no launch
        if support.can_fuse(given[0]):
            from dgc.layers.algorithms.triton import run
        else:
            from dgc.layers.algorithms.triton_operator import run
        numbers = (self.heads, self.kernel_size, self.stride, self.padding, self.dilation)
        rules = tuple(link.rule for link in chain)
        return run(rules, numbers, self.inactive_channels, *given)

    def native_shape(self, size: tuple[int, int]) -> PassShape:
        """The convolution as the kernels take it, on images of this size."""
        k, p, d = self.kernel_size, self.padding, self.dilation
        outs = self.out_channels // self.heads
        return PassShape(
            self.in_channels, size, self.heads, outs, (k, k), self.stride, (p, p), (d, d)
        )

    def _native_setting(self, x_BCHW: Tensor, chain: tuple[Normaliser, ...]) -> LayerSetting:
        rules, (h, w) = tuple(link.rule for link in chain), x_BCHW.shape[2:]
        recorded = self.gate_record is not None
        return LayerSetting(rules, self.n_inactive, self.native_shape((h, w)), recorded)

    def _chain(
        self, x_BCHW: Tensor, norms: Sequence[nn.Module], input_moments: Moments | None
    ) -> tuple[Normaliser, ...]:
        """The BatchNorms on this batch, in order; in training their statistics move on."""
        chain: list[Normaliser] = []
        for norm in norms:
            # the caller's moments are those of x, which only the first BatchNorm sees as it is
            first = not chain
            # an intermediate activation lives for its moments alone; the algorithm makes it again
            inputs = x_BCHW if first else chain[-1].activate(x_BCHW)
            chain.append(
                normaliser(
                    cast("nn.BatchNorm2d", norm),
                    inputs,
                    input_moments if first else None,
                    kernels=self.kernels,
                    triton=self.triton,
                )
            )
        return tuple(chain)

    def _setting(self, found: Dispatch, chain: tuple[Normaliser, ...]) -> Setting:
        geometry = Geometry(self.stride, self.padding, self.dilation, self.heads)
        n = self.inactive_channels if self.n_from_buffer else self.n_inactive
        return Setting(tuple(link.rule for link in chain), n, found, geometry)

    def output_size(self, size: int) -> int:
        """Height or width of the output for that of the input."""
        return (
            size + 2 * self.padding - self.dilation * (self.kernel_size - 1) - 1
        ) // self.stride + 1

    def _record(self, selected_BGC: Tensor) -> None:
        if self.gate_record is not None:
            self.gate_record.add(selected_BGC)

    def _composed(self, found: Dispatch, a_BCHW: Tensor) -> Tensor:
        """The layer in plain operations, after its norm: for torch.compile and unusual norms."""
        gates_BGC = self.gates(a_BCHW)
        selected_BGC, n = self._switch_off(gates_BGC)
        self._last_gate_l1 = gating.gate_l1(gates_BGC)
        self._record(selected_BGC)
        return dgc_conv2d(
            a_BCHW,
            self.weight,
            selected_BGC,
            n,
            self.stride,
            self.padding,
            self.dilation,
            self.heads,
            cast("Backend", found.algorithm),
        )

    def cost(self, x_CHW: tuple[int, ...], y_OHW: tuple[int, ...]) -> Cost:
        """MACs of one image, see dgc.layers.macs."""
        relu = math.prod(x_CHW) if self.norm is not None else 0
        conv = conv_macs(self.weight.shape, y_OHW)
        matrices, channels = self.fc1.numel() + self.fc2.numel(), self.fc2_bias.numel()
        hidden = self.heads * self.fc1.shape[1]
        # to the unit what the authors' counter says (tests/unit/test_macs.py): pooling, both
        # matrices, their bias, the hidden ReLU, and two for each gate
        gating = math.prod(x_CHW) + matrices + channels + hidden + 2 * channels
        selected = conv * (self.in_channels - self.n_inactive) // self.in_channels
        bias = 0 if self.bias is None else math.prod(y_OHW)
        # a converted layer without BatchNorm stands for
        # a bare convolution, which has no ReLU to count
        dense = conv + bias + (relu if self.baseline_has_norm else 0)
        rest = relu + gating + bias
        return Cost(dense, rest + conv * self.gate_factor, rest + selected)

    def gates(self, a_BCHW: Tensor) -> Tensor:
        """Gates (B, G, C) of an activated input before selection;
        never in less than the parameters' precision.
        """
        with without_autocast(a_BCHW):
            pooled_BC = a_BCHW.mean((2, 3), dtype=self.fc1.dtype)
            return gating.gates(pooled_BC, self.fc1, self.fc2, self.fc2_bias)

    def _switch_off(self, gates_BGC: Tensor) -> tuple[Tensor, int]:
        """Selected gates, and how many zeros each row has at least.
        A traced graph takes n from the buffer.
        """
        if self._traced:
            return selection.switch_off_traced(gates_BGC, self.inactive_channels), self.n_traced
        return selection.switch_off(gates_BGC, self.n_inactive), self.n_inactive

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # from the Python number, which is the truth
        self.inactive_channels.fill_(self.n_inactive)  # averaging buffers makes it a fraction
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight_key != "weight":
            destination[prefix + self.weight_key] = destination.pop(prefix + "weight")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        saved, own = prefix + self.weight_key, prefix + "weight"
        # a key of its own (see weight_key): what lies under plain `weight` is then the weights of a
        # dense convolution, which have this shape and another order. They are refused, not loaded
        if saved != own:
            *_, missing, unexpected, _ = args
            dense = own in state_dict
            state_dict = {key: value for key, value in state_dict.items() if key != own}
            if saved in state_dict:
                state_dict[own] = state_dict.pop(saved)
            if dense:
                unexpected.append(own)
        super()._load_from_state_dict(state_dict, prefix, *args)
        # the base class knows the attribute's name alone;
        # the user is told the key that was looked for
        if saved != own and own in missing:
            missing[missing.index(own)] = saved
        stored = state_dict.get(prefix + "inactive_channels")
        if stored is None or stored.numel() != 1:
            return  # reported as missing or misshapen by the base class
        # a checkpoint is data: its number of inactive channels is held against this layer's width
        n = float(stored)
        if not n.is_integer() or not 0 <= n < self.in_channels:
            args[-1].append(
                f"{prefix}inactive_channels is {n}, must be a whole number from 0 to"
                f" {self.in_channels - 1}"
            )
            return
        # both alike: what was loaded is pruned this far until somebody says otherwise
        self.n_inactive = self.n_traced = int(n)

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to one forward:
        a tensor inside a graph can be neither copied nor pickled.
        """
        return {**self.__dict__, "_last_gate_l1": None, "gate_record": None}

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size},"
            f" stride={self.stride}, padding={self.padding}, dilation={self.dilation},"
            f" heads={self.heads}, squeeze_rate={self.squeeze_rate},"
            f" gate_factor={self.gate_factor}, n_inactive={self.n_inactive}"
            + ("" if self.bias is None else ", bias=True")
        )
