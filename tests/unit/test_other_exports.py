"""ONNX and torch.export: the logits of the network, in ONNX Runtime and in a process that knows
nothing of the network.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dgc
from dgc.bench.networks import build
from dgc.errors import UsageError
from dgc.infer.onnx_file import OPSET, metadata, save_onnx
from dgc.infer.operators import README, save_pt2
from dgc.kernels.cpu import library
from dgc.runtime.plan import Preprocessing, from_bytes
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


TOLD = {
    "classes": ["cat", "Käse", "犬", "d", "e"],
    "preprocessing": {"resize": None, "image_size": 20, "mean": [0.5, 0.25, 0.125],
                      "std": [0.2, 0.3, 0.4], "channels": 3},
    "origin": {"run": "demo-1", "averaged": True},
}  # fmt: skip


def of_photos() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return net.eval(), torch.zeros(1, 3, 20, 20)


@needs_onnx
def test_onnx_carries_classes_preprocessing_and_origin(tmp_path: Path) -> None:
    import onnxruntime

    file = save_onnx(*of_photos(), tmp_path / "x.onnx", **TOLD)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    how = TOLD["preprocessing"] | {"crop": "center"}
    wanted = {"classes": TOLD["classes"], **how, "origin": TOLD["origin"]}
    assert {key: json.loads(value) for key, value in found.items()} == wanted
    bare = save_onnx(*of_photos(), tmp_path / "bare.onnx")
    assert onnxruntime.InferenceSession(bare).get_modelmeta().custom_metadata_map == {}


def test_the_metadata_of_onnx_are_json_by_name() -> None:
    how = Preprocessing(24, 20, (0.5, 0.25, 0.125), (0.2, 0.3, 0.4))
    assert metadata(["Käse"], how, {"averaged": False}) == {
        "classes": '["Käse"]', "resize": "24", "image_size": "20", "mean": "[0.5, 0.25, 0.125]",
        "std": "[0.2, 0.3, 0.4]", "channels": "3", "crop": '"center"',
        "origin": '{"averaged": false}',
    }  # fmt: skip
    assert metadata((), None, None) == {}


@pytest.mark.parametrize("saver", [save_onnx, save_pt2])
def test_what_contradicts_the_network_is_refused_here_too(
    saver: Callable[..., Path], tmp_path: Path
) -> None:
    wrong = TOLD["preprocessing"] | {"image_size": 32}
    with pytest.raises(ValueError, match=r"image_size 32: .* the examples are 20 x 20"):
        saver(*of_photos(), tmp_path / "x", preprocessing=wrong)
    assert list(tmp_path.iterdir()) == []


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


@needs_kernels
def test_a_pt2_file_says_which_import_it_needs(tmp_path: Path) -> None:
    file = save_pt2(*of_photos(), tmp_path / "x.pt2", **TOLD)
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/README.txt")]
        assert "import dgc.infer.operators" in archive.read(name).decode()
    extra = {README: ""}
    module = torch.export.load(file, extra_files=extra).module()
    assert "import dgc.infer.operators" in str(extra[README])
    plan = from_bytes(next(module.buffers()).numpy(), "inside")
    assert list(plan.classes) == TOLD["classes"]
    assert plan.origin == TOLD["origin"]
    words = [sys.executable, "-c", "import sys, torch; torch.export.load(sys.argv[1])", file]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert done.returncode == 1
    # PyTorch's own words, which the operator's name makes an advice of
    assert "failed to resolve torch.ops.dgc_infer_operators.run_plan" in done.stderr
