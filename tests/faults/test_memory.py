"""Out of memory (row 40): the line says what to try, and what was saved stands. The GPU's form
needs a GPU.
"""

import pytest
import torch

from dgc.errors import ExitCode
from dgc.run import checkpoint_store
from tests.faults.training import Zygote, make_run

BIG = (("batch_size: 8", "batch_size: 44"), ("growth: [4, 4, 4]", "growth: [32, 32, 32]"))


def test_host_memory(tmp_path, fault_table):
    run = make_run(tmp_path / "run", *BIG)
    with (
        Zygote() as zygote,
        fault_table.case(40, "host memory exhausted (RLIMIT_AS): named, code 7") as case,
        case.run(),
    ):
        code, said = zygote.train(run, MORE_MEMORY=str(96 << 20))
        assert code == ExitCode.RESOURCES, said
        assert "error: out of memory on cpu: try train.batch_size <= 22" in said
        assert said.strip().endswith("last checkpoint: step-000000")
        assert [found.step for found in checkpoint_store.list_checkpoints(run)] == [0]
        newest = checkpoint_store.newest_valid(run)
        assert newest is not None
        assert newest[2] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: fills its memory")
def test_gpu_memory(tmp_path, fault_table):
    run = make_run(tmp_path / "run", *BIG, ("device: cpu", "device: cuda"))
    hog = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.98), dtype=torch.uint8, device="cuda")
    with (
        Zygote() as zygote,
        fault_table.case(40, "GPU memory exhausted: named, code 7") as case,
        case.run(),
    ):
        code, said = zygote.train(run)
        assert code == ExitCode.RESOURCES, said
        assert "error: out of memory on cuda:0 (peak " in said
        assert "try train.batch_size <= 22, or train.accumulate" in said
    del hog
