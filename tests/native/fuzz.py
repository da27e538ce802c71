"""Build the fuzz target of plan files and run it: `make fuzz`, `python -m tests.native.fuzz`.

    python -m tests.native.fuzz [--seconds 60] [--compiler clang++] [--keep FOLDER]

With clang++ it is libFuzzer's, guided by coverage; with another compiler it runs the corpus and inputs
made up at random. Both with AddressSanitizer and the kernels' contracts (DGC_DEBUG), what reads and
checks plan files with UndefinedBehaviorSanitizer too; all instruction sets that the machine has are
run. What is found lies in FOLDER afterwards; the corpus is tests/native/plan_corpus.txt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.native.fuzz_seeds import write

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "native" / "plan_corpus.txt"  # an input a line, in hex
SANITIZERS = "address,undefined"
HANGS = (
    1200  # seconds for one input, by the clock: a process that was stopped meanwhile has not hung
)


def build(folder: Path, compiler: str) -> Path:
    """The program; its library lies beside it."""
    guided = "clang" in Path(compiler).name
    flags = "-fsanitize=fuzzer-no-link" if guided else ""
    options = [
        "-DDGC_SANITIZE=address", "-DDGC_DEBUG=ON", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CXX_FLAGS={flags}",
        "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON",
    ]  # fmt: skip
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *options], **quiet)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], **quiet)
    program = folder / "fuzz_plan"
    kind = f"-fsanitize=fuzzer,{SANITIZERS}" if guided else f"-fsanitize={SANITIZERS}"
    words = [
        compiler, "-std=c++17", "-O1", "-g1", kind, *([] if guided else ["-DDGC_OWN_MAIN"]),
        f"-I{ROOT / 'dgc/kernels/cpu/src'}", ROOT / "tests/native/fuzz_plan.cpp",
        folder / "_dgc_native.so", f"-Wl,-rpath,{folder}", "-o", program,
    ]  # fmt: skip
    subprocess.run(words, check=True)
    return program


def unpack(folder: Path) -> list[Path]:
    """The corpus as files, an input each."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, line in enumerate(CORPUS.read_text().split()):
        files.append(folder / f"{number:04d}")
        files[-1].write_bytes(bytes.fromhex(line))
    return files


def environment(seeds: Path) -> dict[str, str]:
    return os.environ | {
        "DGC_FUZZ_SEEDS": str(seeds),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=20_000, help="without libFuzzer")
    parser.add_argument("--compiler", default=shutil.which("clang++") or "c++")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        seeds, found = folder / "seeds", folder / "found"
        for place in (seeds, found):
            place.mkdir(parents=True, exist_ok=True)
        write(seeds)
        corpus = unpack(folder / "corpus")
        program = build(folder / "build", given.compiler)
        words: list[object] = [program]
        if "clang" in Path(given.compiler).name:
            words += [
                f"-max_total_time={given.seconds}", "-max_len=257", f"-timeout={HANGS}", "-rss_limit_mb=4000",
                "-print_final_stats=1", f"-artifact_prefix={found}/", found, folder / "corpus",
            ]  # fmt: skip
        else:
            words += [f"-runs={given.runs}", *corpus]
        return subprocess.run(words, env=environment(seeds), cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
