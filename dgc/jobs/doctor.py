"""`python -m dgc.jobs.doctor --json OUT`: what torch is here, what it can use, and whether the
native path is in use.

A process of its own, so that `dgcctl doctor` can say it when torch itself is what is wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dgc.errors import UsageError
from dgc.run.files import write_json
from dgc.talk import run_program


def torch_facts() -> dict[str, Any]:
    """Version and build, CPU instruction set, threads, GPUs."""
    import torch
    import torchvision

    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda_build": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
    }


def _gpu(index: int) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(index)
    capability = f"{facts.major}.{facts.minor}"
    return {
        "index": index,
        "name": facts.name,
        "memory": facts.total_memory,
        "capability": capability,
    }


def native_facts() -> dict[str, Any]:
    """Whether the C++ kernels are in use, for which instruction set,
    and if not why not; "error": a wrong setting.
    """
    from dgc.kernels import cpu

    try:
        # a wrong setting is a finding, not the end of the report
        return cpu.describe()
    except UsageError as error:
        return {"available": False, "error": str(error)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.doctor")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    write_json(given.json, {"torch": torch_facts(), "native": native_facts()})
    return 0


if __name__ == "__main__":
    run_program(main)
