"""How many products a second one core can make in each precision, with all operands in registers:

    python -m benchmarks.product_peaks [--out benchmarks/results/product_peaks.md]

It says what an engine in that precision could gain at most over float32 on this processor. A small
program of inline assembly is compiled for it (a C++ compiler and an x86-64 processor are needed);
instructions that the processor lacks are left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import add_out, tell
from dgc.bench.machine import facts

SUMS = 12  # independent sums: more than the latency of an instruction times its throughput


@dataclass(frozen=True)
class Products:
    """Instructions that add products to a sum, on registers of a width."""

    name: str
    flag: str  # of /proc/cpuinfo
    lines: tuple[str, ...]  # of assembly; {r} is the sum
    products: int  # by one of these
    wide: bool


# register 0 and 1 hold the operands, 2 is room between
WAYS = (
    Products("float32, AVX2", "fma", ("vfmadd231ps {x}0, {x}1, {r}",), 8, False),
    Products(
        "bytes, AVX2",
        "avx2",
        ("vpmaddubsw {x}0, {x}1, {x}2", "vpmaddwd {x}0, {x}2, {x}2", "vpaddd {x}2, {r}, {r}"),
        32,
        False,
    ),
    Products("bytes, AVX-VNNI", "avx_vnni", ("%{{vex%}} vpdpbusd {x}0, {x}1, {r}",), 32, False),
    Products("float32, AVX-512", "avx512f", ("vfmadd231ps {x}0, {x}1, {r}",), 16, True),
    Products("bfloat16, AVX512_BF16", "avx512_bf16", ("vdpbf16ps {x}0, {x}1, {r}",), 32, True),
    Products("float16, AVX512_FP16", "avx512_fp16", ("vfmadd231ph {x}0, {x}1, {r}",), 32, True),
    Products("bytes, AVX512_VNNI", "avx512_vnni", ("vpdpbusd {x}0, {x}1, {r}",), 64, True),
)
_TIMED = """
#include <chrono>
#include <cstdio>
int main() {
    const long rounds = 20000;
    double best = 1e9;
    asm volatile("vpxor %%xmm0, %%xmm0, %%xmm0\\n vpxor %%xmm1, %%xmm1, %%xmm1" ::: "xmm0", "xmm1");
    for (int again = 0; again < 400; ++again) {
        const auto start = std::chrono::steady_clock::now();
        for (long i = 0; i < rounds; ++i) asm volatile("LINES" ::: CLOBBERED);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        if (took.count() < best) best = took.count();
    }
    std::printf("%.3f", rounds * PRODUCTS / best / 1e9);
}
"""


def measured(way: Products, compiler: str, folder: Path) -> float:
    """Products a second (1e9) of one core, the best of 400. Raises CalledProcessError."""
    x = "%%zmm" if way.wide else "%%ymm"
    sums = range(3, 3 + SUMS)
    lines = [line.format(x=x, r=f"{x}{s}") for s in sums for line in way.lines]
    source = (
        _TIMED.replace("LINES", "\\n".join(lines))
        .replace("CLOBBERED", ", ".join(f'"xmm{n}"' for n in range(3 + SUMS)))
        .replace("PRODUCTS", f"{float(way.products * SUMS)}")
    )
    (folder / "products.cpp").write_text(source)
    target = folder / "products"
    words = [compiler, "-O2", "-mavx512f" if way.wide else "-mavx2", "products.cpp", "-o", target]
    subprocess.run(words, cwd=folder, check=True)
    return float(subprocess.run([target], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_out(parser)
    asked = parser.parse_args()
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("error: no C++ compiler: install g++ or clang++")
    flags = set(Path("/proc/cpuinfo").read_text().split())
    machine = facts()
    lines = [
        "# Products a second, one core", "",
        f"`python -m benchmarks.product_peaks`; {machine['cpu']}; {machine['date']}. All operands in registers, the"
        " best of 400 rounds. Winograd's way of a 3x3 convolution, which the kernels take in float32, saves 2.25 of"
        " every product besides.", "",
        "| precision, instructions | 1e9 products a second | x float32 of the same width |", "|---|--:|--:|",
    ]  # fmt: skip
    base = {}
    with tempfile.TemporaryDirectory() as place:
        for way in WAYS:
            if way.flag not in flags:
                lines.append(f"| {way.name} | not on this processor | |")
                continue
            speed = measured(way, compiler, Path(place))
            base.setdefault(way.wide, speed)
            lines.append(f"| {way.name} | {speed:.0f} | {speed / base[way.wide]:.2f} |")
    tell("\n".join(lines) + "\n", asked.out)


if __name__ == "__main__":
    main()
