"""What the libraries beneath PyTorch say of a full GPU becomes one line; images for a GPU are pinned
also where no worker reads them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dgc.data import open_images, train_loader
from dgc.errors import ExitCode, ResourceError
from dgc.run.paths import RunDir
from dgc.train.explain import translate


def session(tmp_path: Path) -> Any:
    train = SimpleNamespace(batch_size=64)
    return SimpleNamespace(
        run=RunDir(tmp_path),
        recipe=SimpleNamespace(train=train),
        ranks=SimpleNamespace(world=1, device=torch.device("cuda", 0)),
        position=SimpleNamespace(step=7),
        train=None,
    )


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` ...",
    ],
)
@pytest.mark.parametrize("answers", [True, False])
def test_a_full_gpu_is_one_line(
    said: str, answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(_: Any) -> tuple[int, int]:
        if not answers:
            raise RuntimeError("CUDA error: out of memory")
        return 1000, 2000

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 500)
    found = translate(session(tmp_path), RuntimeError(said))
    assert isinstance(found, ResourceError)
    assert found.exit_code == ExitCode.RESOURCES
    told = " (peak 500 bytes here, 1,000 of 2,000 bytes free)" if answers else ""
    advice = "try train.batch_size <= 32, or train.accumulate at step 7; last checkpoint: none"
    assert str(found) == f"out of memory on cuda:0{told}: {advice}"
    assert translate(session(tmp_path), RuntimeError("CUDA error: invalid argument")) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_images_for_a_gpu_are_pinned_once(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(name="fashion_mnist", limit_train=16)
    common: Any = {"seed": 0, "batch_size": 8, "mean": (0.3,) * 3, "std": (0.3,) * 3}
    loader = train_loader(images.train, workers=0, **common)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t.dtype) or t)
    raw = loader._maker[next(iter(loader._tasks))]
    assert loader._pinned(raw) is raw  # type: ignore[arg-type]
    loader.workers = workers
    loader._normalise.device = torch.device("cuda")
    loader._pinned(raw)  # type: ignore[arg-type]
    assert pinned == ([] if workers else [torch.uint8, torch.int64])
