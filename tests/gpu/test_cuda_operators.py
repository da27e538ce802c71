"""On a GPU: the Triton kernels as operators of PyTorch, for torch.compile and torch.export."""

from __future__ import annotations

import pytest
import torch

from tests import interpreted_operators

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: the GPU path is run on it"
)


def test_opcheck_finds_nothing() -> None:
    interpreted_operators.checked("cuda")


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_a_network_is_compiled_as_one_graph(compiler: str) -> None:
    torch.compiler.reset()
    interpreted_operators.compiled("cuda", compiler)


def test_a_network_is_exported_saved_and_loaded() -> None:
    interpreted_operators.exported("cuda")
