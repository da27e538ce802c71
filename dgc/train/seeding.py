"""Random numbers and determinism: seeds, switches, and the random state as plain values for a
checkpoint.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch


def set_switches(
    *, deterministic: bool, threads: int | None, compiled: bool = False, tf32: bool = False
) -> None:
    """Before anything is computed: deterministic kernels only (or an error), or the fastest; number
    of CPU threads; whether a GPU may compute float32 products in TF32. PyTorch by itself does so in
    convolutions and not in products of matrices, which would treat DGC and its dense twin
    unequally.
    """
    if deterministic:
        # read when cuBLAS starts, so it must stand there before the first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiled:
        # for torch.compile too, whose modules take seconds to import
        torch.use_deterministic_algorithms(deterministic)
    # the same switch; this way to set it imports none of torch.compile's modules
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # a debugging aid that costs a pass over memory
    torch._C._set_deterministic_fill_uninitialized_memory(False)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if threads is not None:
        torch.set_num_threads(threads)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, those of all devices included."""
    random.seed(seed)
    # NumPy takes no more than 32 bits
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of all generators of this process, as JSON values and hex text."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
    }
    # asking for it would start CUDA in a process that does not use it
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put all generators back to what `random_state` saw."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
