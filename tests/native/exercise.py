"""All kernels on many shapes, in a process of its own, for a library that was built to watch itself
(sanitizers, contracts): `exercise.py few`, or `many`. Prints "clean" at the end.
"""

import sys

import torch

import dgc
from dgc.kernels.cpu import library
from dgc.kernels.cpu.int8 import Convolution, kept_of
from dgc.kernels.cpu.layout import Window
from dgc.layers import DynamicGroupConv2d
from dgc.layers.reference import masked_conv2d
from dgc.layers.static import norm_relu_pool, window_means
from tests.native.fuzz_seeds import networks
from tests.one_layer import native_conv2d

torch.manual_seed(0)
torch.set_num_threads(2)
many = sys.argv[1] == "many"
for k in (1, 3, 5):
    for heads, channels, outs in ((1, 8, 5), (4, 32, 8), (2, 96, 32), (3, 24, 7)) + (
        ((8, 1024, 16),) if many else ()
    ):
        for size in (1, 7, 14, 33):
            for stride in (1, 2, 3):
                x = torch.randn(2, channels, size, size + 1)
                w = torch.randn(heads * outs, channels, k, k)
                g = torch.relu(torch.randn(2, heads, channels))
                y = native_conv2d(x, w, g, stride, k // 2, 1, heads)
                z = masked_conv2d(x, w, g, stride, k // 2, 1)
                assert (y - z).abs().max() <= 1e-4 * max(1, z.abs().max()), (
                    k,
                    heads,
                    channels,
                    outs,
                    size,
                    stride,
                )
native = library.load()
for k in (1, 3, 5):  # in bytes: deep ones go by tiles where the machine has them
    for heads, channels, outs in ((1, 8, 5), (4, 32, 8), (2, 300, 40), (3, 24, 17)):
        for size in (1, 7, 14, 33) if channels < 100 or many else (9,):
            for stride, dynamic in ((1, True), (2, True), (1, False)):
                own = channels if dynamic else channels // heads
                norm = torch.randn(2, channels) if size == 14 else (None, None)
                window = Window((k, k), stride, (k // 2, k // 2), (1, 1))
                layer = Convolution(
                    torch.randn(heads * outs, own, k, k),
                    heads,
                    window,
                    (size, size + 1),
                    dynamic,
                    bias=torch.randn(heads * outs),
                    in_scale=norm[0],
                    in_shift=norm[1],
                    signed=size != 7,
                    relu=stride == 2,
                )
                x = torch.randn(2, channels, size, size + 1)
                gates = torch.relu(torch.randn(2, heads, channels))
                kept = kept_of(gates) if dynamic else None
                y = layer.run(native, x if size != 7 else x.abs(), kept)
                z = layer.run(native, x if size != 7 else x.abs(), kept, reference=True)
                assert torch.equal(y, z), (k, heads, channels, outs, size, stride, dynamic)
for k in (1, 3, 5):
    for heads, own, outs in ((1, 8, 5), (4, 8, 8), (2, 40, 32), (3, 2, 7)):
        for size in (5, 8, 17, 33):
            for stride in (1, 2, 3):
                layer = DynamicGroupConv2d(
                    heads * own, heads * outs, k, stride, k // 2, heads=heads, gate_factor=1.0
                )
                for n in (0, heads * own // 2, heads * own - 1):
                    layer.set_inactive(n)
                    x = torch.randn(3, heads * own, size, size + 1, requires_grad=True)
                    if (k, n) == (3, 0):
                        x.data[1, 0, 0, 0] = torch.nan
                    y = layer(x)
                    assert "NativeLayer" in type(y.grad_fn).__name__
                    (y.square().sum() + layer.gate_l1).backward()
for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (5, 3, 2), (1, 1, 0), (15, 4, 7)):
    for height, width in ((15, 16), (17, 33), (31, 70)):
        x = torch.randn(3, 5, height, width, requires_grad=True)
        for pool in (torch.nn.MaxPool2d(kernel, stride, padding), torch.nn.AdaptiveAvgPool2d(1)):
            y = norm_relu_pool(torch.nn.BatchNorm2d(5), torch.nn.ReLU(), pool, x)
            assert "Native" in type(y.grad_fn).__name__
            y.square().sum().backward()
        y = window_means(torch.nn.AvgPool2d(kernel), x)
        assert "Native" in type(y.grad_fn).__name__
        y.square().sum().backward()
for name, size in (("dydensenet", 30), ("dyresnet18", 70 if many else 64)):
    numbers = {"stages": (2, 2), "growth": (8, 32)} if name == "dydensenet" else {}
    model = dgc.create_model(name, num_classes=7, **numbers)
    dgc.set_progress(model, 0.9)
    (model(torch.randn(6, 3, size, size)).square().mean() + dgc.gate_l1(model)).backward()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # plain averages: two passes are enough for statistics that fit
    with torch.no_grad():
        model(torch.randn(6, 3, size, size))
        model(torch.randn(6, 3, size, size))
    engine = dgc.compile_for_inference(model.eval())
    in_bytes = dgc.compile_for_inference(model, precision="int8")
    for batch in (1, 3):
        x = torch.randn(batch, 3, size, size)
        assert engine.plan_for(x) is not None
        assert torch.isfinite(engine(x)).all()
        assert in_bytes.plan_for(x) is not None
        assert torch.isfinite(in_bytes(x)).all()
for net, one in networks():  # together they have every kind of operation
    engine = dgc.compile_for_inference(net, strict=True)
    in_bytes = dgc.compile_for_inference(net, precision="int8")
    for batch in (1, 3):
        x = torch.randn(batch, *one.shape[1:])
        with torch.no_grad():
            assert torch.allclose(engine(x), net(x), rtol=1e-4, atol=1e-4)
            assert torch.isfinite(in_bytes(x)).all()
print("clean")
