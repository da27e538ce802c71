"""A network for torch.export: one custom operator that holds a plan file. `import
dgc.infer.operators` before `torch.export.load` of such a file.

    save_pt2(model, example, "model.pt2")
    # elsewhere
    import dgc.infer.operators
    logits = torch.export.load("model.pt2").module()(images)
"""

from __future__ import annotations

import copy
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgc.infer.plan_facts import place_of
from dgc.infer.plan_file import image_of, save_plan
from dgc.runtime import writer
from dgc.runtime.plan import Plan, from_bytes

README = "README.txt"  # among the extra files of what `save_pt2` writes
_README = """\
A network for torch.export.load, written by dgcctl. Before that call:

    import dgc.infer.operators  # pip install dgcctl

It registers the operator dgc_infer_operators::run_plan, without which PyTorch cannot read the file.
"""
_plans: dict[int, Plan] = {}


def _plan(file: Tensor) -> Plan:
    """The plan in a tensor of bytes, kept as long as its memory."""
    # By its memory: each call may hand over another tensor of it.
    key = file.untyped_storage().data_ptr()
    if key not in _plans:
        _plans[key] = from_bytes(file.numpy(), "plan", threads=torch.get_num_threads())
        # Memory that was given back may be another plan's.
        weakref.finalize(file.untyped_storage(), _plans.pop, key, None)
    return _plans[key]


# Its space of names is the module to import: where nobody did, PyTorch's error has nothing else to
# say than the operator's name.
@torch.library.custom_op("dgc_infer_operators::run_plan", mutates_args=())
def run_plan(images_BCHW: Tensor, file: Tensor, answer: Sequence[int]) -> Tensor:
    """Images through the plan whose bytes are in `file`; (B, *answer)."""
    return torch.from_numpy(_plan(file)(images_BCHW.detach().contiguous().numpy()))


@run_plan.register_fake
def _(images_BCHW: Tensor, file: Tensor, answer: Sequence[int]) -> Tensor:
    return images_BCHW.new_empty(images_BCHW.shape[0], *answer)


class PlanModule(nn.Module):
    """A plan file as a module."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        data = torch.from_numpy(np.fromfile(file, np.uint8))
        self.register_buffer("file", data)
        self.answer = list(_plan(data).shapes[0].answer)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        y: Tensor = run_plan(images_BCHW, self.file, self.answer)
        return y


def save_pt2(
    model: nn.Module,
    example: Tensor,
    file: str | os.PathLike[str],
    classes: Sequence[str] = (),
    preprocessing: Any = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` for torch.export.load: images of the size of `example`, any number at once,
    with the bits of the compiled module. The rest as of `dgc.save_plan`, whose file is in it.
    """
    image_of(example)
    path = place_of(file)
    batch = {0: torch.export.Dim("batch", min=1, max=1 << 20)}
    # two images: a single one would be taken for a number that never changes
    images = example[:1].detach().expand(2, -1, -1, -1).contiguous()
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
        told = (classes, preprocessing, origin)
        plan = save_plan(copy.deepcopy(model), example, Path(folder, "model.dgc"), *told)
        exported = torch.export.export(PlanModule(plan), (images,), dynamic_shapes=(batch,))
        made = Path(folder, "model.pt2")
        torch.export.save(exported, made, extra_files={README: _README})
        writer.write(made.read_bytes(), path)
    return path
