"""ONNX and torch.export: the logits of the network, in ONNX Runtime and in a process that knows
nothing of the network.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dgc
from dgc.bench.networks import build
from dgc.errors import UsageError
from dgc.infer.onnx_file import OPSET, save_onnx
from dgc.infer.operators import save_pt2
from dgc.kernels.cpu import library
from tests.native.fuzz_seeds import networks
from tests.plan_files import images, network
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx and onnxruntime")
needs_kernels = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


def densenet() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", num_classes=7, stages=(2, 2), growth=(8, 16))
    dgc.set_progress(net, 1.0)
    return net.eval(), torch.randn(3, 3, 32, 32)


def resnet() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return build("resnet18", "dgc"), torch.randn(3, 3, 64, 64)


def forms(number: int) -> tuple[nn.Module, torch.Tensor]:
    net, x = networks()[number]
    return net, torch.randn(3, *x.shape[1:], generator=torch.Generator().manual_seed(2))


@needs_onnx
@pytest.mark.parametrize(
    "make",
    [densenet, resnet, lambda: (network(), images()), *(lambda i=i: forms(i) for i in range(4))],
)
def test_onnx_gives_the_logits_of_the_network(
    make: Callable[[], tuple[nn.Module, torch.Tensor]], tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    net, x = make()
    file = save_onnx(net, x, tmp_path / "x.onnx")
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = net(x).numpy()
    scale = max(1.0, float(np.abs(wanted).max()))
    for batch in (3, 1):
        (found,) = session.run(None, {"images": x[:batch].numpy()})
        assert np.abs(found - wanted[:batch]).max() <= 1e-5 * scale


@needs_onnx
def test_a_network_that_has_no_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        save_onnx(nn.Sequential(nn.GLU(1)), torch.zeros(1, 4, 8, 8), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


FRESH = """
import sys
import numpy as np
import torch
import dgc.infer.operators
module = torch.export.load(sys.argv[1]).module()
x = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], np.concatenate([module(x).numpy(), module(x[:1]).numpy()]))
assert "dgc.models" not in sys.modules
"""


@needs_kernels
@pytest.mark.parametrize("make", [densenet, lambda: (network(), images())])
def test_pt2_gives_the_bits_of_the_plan_in_a_fresh_process(
    make: Callable[[], tuple[nn.Module, torch.Tensor]], tmp_path: Path
) -> None:
    net, x = make()
    save_pt2(net, x, tmp_path / "x.pt2")
    np.save(tmp_path / "x.npy", x.numpy())
    words = [
        sys.executable,
        "-c",
        FRESH,
        tmp_path / "x.pt2",
        tmp_path / "x.npy",
        tmp_path / "y.npy",
    ]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert done.returncode == 0, done.stderr
    wanted = dgc.compile_for_inference(net)(x)
    found = np.load(tmp_path / "y.npy")
    assert np.array_equal(found, torch.cat([wanted, wanted[:1]]).numpy())
    with torch.no_grad():
        assert np.abs(found[:-1] - net(x).numpy()).max() <= 1e-5 * max(1, float(wanted.abs().max()))
