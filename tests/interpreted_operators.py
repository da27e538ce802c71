"""The layer's operators in Triton's interpreter: opcheck, a whole network compiled as one graph, and
exported; as tests/interpreted_kernels.py. tests/gpu/test_cuda_operators.py does the same on a GPU.

    TRITON_INTERPRET=1 python -m tests.interpreted_operators
"""

from __future__ import annotations

import copy
import io
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

import dgc
from dgc.layers import DynamicGroupConv2d
from dgc.layers.algorithms import triton_operator
from tests.against_oracle import worst
from tests.interpreted_kernels import drawn


def arguments(training: bool, double: bool, device: str = "cpu") -> tuple[object, ...]:
    """Of `dynamic_layer`: a 3x3 layer behind two BatchNorms, or a 1x1 layer behind one."""
    shape = (6, 8, 3, 2, 1, 1, 2, 3, 4, 3) if double else (9, 6, 1, 1, 0, 1, 3, 4, 3, 2)
    layer, x = drawn(shape, 0, 0, batch=2)
    layer, x = layer.float().to(device), x.float().to(device)
    assert layer.norm is not None
    moments = [t.to(device) for t in (torch.randn(x.shape[1]), torch.rand(x.shape[1]) + 0.5)]
    leaves = [t.detach().clone().requires_grad_() for t in
              (x, layer.weight, layer.fc1, layer.fc2, layer.fc2_bias)]  # fmt: skip
    norms = []
    for _ in range(1 + double):
        for t in (layer.norm.weight, layer.norm.bias):
            norms.append(t.detach().clone().requires_grad_())  # type: ignore[union-attr]
        norms += [t.clone() for t in moments]
    window = [layer.heads, layer.kernel_size, layer.stride, layer.padding, layer.dilation]
    count = len(norms) // 4
    return (*leaves, layer.inactive_channels, norms, [1e-5] * count, [training] * count, window)


def checked(device: str = "cpu") -> None:
    for training, double in ((True, False), (False, False), (True, True)):
        given = arguments(training, double, device)
        found = torch.library.opcheck(triton_operator.dynamic_layer, given)
        print("opcheck", training, double, found)
        assert set(found.values()) == {"SUCCESS"}


def network(training: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", stages=(1, 1), growth=(4, 4), num_classes=4)
    dgc.set_backend(net, "triton")
    dgc.set_progress(net, 0.6)
    return net.train(training)


def trained(net: torch.nn.Module, call: torch.nn.Module, images: Tensor) -> list[Tensor]:
    net.zero_grad()
    logits = call(images)
    loss = F.cross_entropy(logits, torch.tensor([0, 3], device=images.device))
    (loss + 1e-2 * dgc.gate_l1(net)).backward()  # type: ignore[no-untyped-call]
    return [logits, *(p.grad for p in net.parameters() if p.grad is not None), *net.buffers()]


def compiled(device: str = "cpu", compiler: str = "aot_eager") -> None:
    """One graph, forward and backward, against the same network without a compiler."""
    images = torch.randn(2, 3, 6, 6).to(device)
    net = network(training=True).to(device)
    whole = copy.deepcopy(net)
    compiled = torch.compile(whole, backend=compiler, fullgraph=True)
    expected, found = trained(net, net, images), trained(whole, compiled, images)  # type: ignore[arg-type]
    error = worst([t.cpu() for t in found], [t.cpu().double() for t in expected])
    print(f"compiled: {error:.1e}")
    assert error <= 1e-5


def exported(device: str = "cpu") -> None:
    """Saved and loaded, the operators are nodes of the program, which says the same."""
    images = torch.randn(2, 3, 6, 6).to(device)
    net = network(training=False).to(device)
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (images,)), file)
    file.seek(0)
    program = torch.export.load(file)
    nodes = [str(node.target) for node in program.graph.nodes]
    layers = sum(isinstance(m, DynamicGroupConv2d) for m in net.modules())
    assert nodes.count("dgc.dynamic_layer.default") == layers
    with torch.no_grad():
        error = (program.module()(images) - net(images)).abs().max().item()
    print(f"exported: {layers} operators, error {error:.1e}")
    assert error <= 1e-5


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    checked()
    compiled()
    exported()
