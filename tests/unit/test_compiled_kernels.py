"""The kernels for GPUs as compiled for four targets without a GPU: the table that is checked in is of
these sources, says what it should, and is what the compiler says today.

`python -m tests.compiled_kernels` writes it anew (some ten minutes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgc.kernels import gpu

pytestmark = pytest.mark.skipif(not gpu.installed(), reason="Triton is not installed")
TABLE: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "golden" / "gpu_kernels.json").read_text()
)
KERNELS = TABLE["kernels"]
# those that make products; the grouped ones are for groups too narrow for a tensor core
PRODUCTS = ("forward_kernel", "grad_input_kernel", "grad_weight_kernel")
# of what one program may have
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}


def rows() -> list[tuple[str, str, dict[str, int]]]:
    return [(name, to, row) for name, targets in KERNELS.items() for to, row in targets.items()]


def test_nothing_spills_nothing_is_left_to_chance_all_fits() -> None:
    assert len(KERNELS) >= 70
    for name, target, row in rows():
        assert row["spills"] == row["spilled_bytes"] == 0, (name, target, row)
        assert row["atomics"] == row["fused_lanes"] == 0, (name, target, row)
        assert row["shared_bytes"] <= SHARED[target], (name, target, row)
        assert 0 < row["registers"] <= (512 if target == "gfx942" else 255), (name, target, row)


def test_products_are_those_of_tensor_cores() -> None:
    for name, target, row in rows():
        assert (row["tensor_core"] > 0) == name.startswith(PRODUCTS), (name, target, row)


def test_each_kernel_is_in_it() -> None:
    from dgc.kernels.gpu import around_conv, dynamic_conv, grouped

    modules = (around_conv, dynamic_conv, grouped)
    there = {name for m in modules for name in vars(m) if name.endswith("_kernel")}
    assert there == {name.split()[0] for name in KERNELS}


def test_it_is_of_these_sources() -> None:
    from tests.compiled_kernels import sources_digest

    assert TABLE["sources"] == sources_digest(), "write it anew: python -m tests.compiled_kernels"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("forward_kernel bf16 densenet86 first", "sm_90"),
        ("grad_weight_kernel fp32 densenet86 first", "sm_80"),
        ("select_kernel fp32 densenet86 first", "sm_100"),
        ("grad_input_kernel bf16 densenet86 first", "gfx942"),
    ],
)
def test_the_compiler_says_so_today(
    name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton

    from tests.compiled_kernels import facts, launches

    if triton.__version__ != TABLE["triton"]:
        pytest.skip("the table is of another Triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = launches((name.split()[1],), (name.split(maxsplit=2)[2],))
    assert facts(found[name], target) == KERNELS[name][target]


def test_a_change_of_a_kernel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compiled with other tiles: the row is another."""
    from dgc.kernels.gpu import tiles
    from tests.compiled_kernels import facts, launches

    name = "forward_kernel bf16 densenet86 first"
    monkeypatch.setattr(tiles, "forward", lambda *_: tiles.Tile(64, 16, 16, 4, 2))
    found = launches(("bf16",), ("densenet86 first",))
    assert facts(found[name], "sm_90") != KERNELS[name]["sm_90"]


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize(
    ("module", "layer", "kernel"),
    [
        ("dynamic_conv", "small", "grad_input_kernel"),
        ("grouped", "few", "grouped_input_kernel"),
    ],
)
def test_a_product_that_is_fused_across_lanes_is_seen(
    module: str,
    layer: str,
    kernel: str,
    target: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """racecheck found it on a GPU: lanes that hold the same sum but for its last bit store it."""
    from dgc.kernels.gpu import passes
    from tests import compiled_kernels
    from tests.interpreted_shapes import mutant

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(compiled_kernels.GROUPED, "few", (8, 8, 8, 3))

    def fused() -> int:
        found = compiled_kernels.launches(("fp32",), (layer,))
        return compiled_kernels.facts(found[f"{kernel} fp32 {layer}"], target)["fused_lanes"]

    assert fused() == 0
    line, slip = "rounded_product(total, centred)", "(total * centred)"
    original = getattr(passes, module)
    monkeypatch.setattr(passes, module, mutant(tmp_path / "plain.py", original, line, slip))
    assert fused() > 0
