"""Plan files in C and C++: the examples, built outside the repository by each compiler that is there,
give the bits of NumPy; a damaged file is a code and a line.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import dgc
import dgc.runtime
from dgc.kernels.cpu import library
from tests.plan_files import images, network
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COMPILERS = [name for name in ("gcc", "clang", "clang-14") if shutil.which(name)]

pytestmark = [
    pytest.mark.skipif(
        not library.available(), reason="the kernels were not built: no C++ compiler"
    ),
    pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang"),
]
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]


def run(words: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip


def test_header_library_and_examples_of_a_checkout_are_found() -> None:
    done = run([sys.executable, "-m", "dgc.runtime", "where"], ROOT)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(found) == ["header", "library", "C", "C++"]
    assert all(Path(path).is_file() for path in found.values())
    assert Path(found["C"]) == EXAMPLES / "plan.c"
    assert dgc.runtime.examples() == EXAMPLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("outside")
    dgc.save_plan(network(), images(), found / "model.dgc", ["a", "b", "c", "d", "e"])
    images(3).numpy().tofile(found / "images")
    return found


@pytest.fixture(scope="module")
def wanted(folder: Path) -> Iterator[NDArray[np.float32]]:
    """By the widest instruction set, as a C program computes where its options name none: the
    variable DGC_NATIVE_ISA is Python's.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DGC_NATIVE_ISA", raising=False)
        yield dgc.runtime.load(folder / "model.dgc", threads=1)(images(3).numpy())


@pytest.fixture(scope="module")
def flags(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dgc.runtime", "--cflags"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=GUARD,
    )  # fmt: skip
    return shlex.split(done.stdout)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", ["plan.c", "plan.cpp"])
def test_the_examples_give_the_bits_of_numpy(
    source: str, compiler: str, folder: Path, flags: list[str], wanted: NDArray[np.float32]
) -> None:
    compiler = (
        compiler.replace("gcc", "g++").replace("clang", "clang++") if "cpp" in source else compiler
    )
    standard = "-std=c++17" if "cpp" in source else "-std=c99"
    built = run([compiler, standard, *STRICT, EXAMPLES / source, *flags, "-o", "plan"], folder)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    for threads in ("1", "2"):
        done = run(["./plan", "model.dgc", "images", "out", threads], folder)
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.fromfile(folder / "out", np.float32).reshape(3, 5), wanted)


# Everything else of the header: names, memory of the caller's own, wrong arguments.
REST = r"""
#include <dgc_plan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char** argv) {
    DgcError why;
    DgcPlan* plan = dgc_plan_open(argv[1], &why);
    if (!plan) return printf("%d %s\n", why.code, why.text), 0;
    DgcOptions options = {0};
    DgcShape shape;
    int64_t bytes = 1, size;
    printf("%d %d %s %d\n", dgc_plan_api(), (int)dgc_plan_classes(plan), dgc_plan_class(plan, 4),
           dgc_plan_class(plan, 5) == NULL);
    int code = dgc_plan_shape(plan, 0, &shape);
    printf("%d %d %d\n", code, (int)shape.channels, dgc_plan_shape(plan, 1, &shape));
    printf("%d %d\n", dgc_plan_preprocessing(plan) == NULL, dgc_plan_origin(plan, &bytes) == NULL);
    size = dgc_runner_bytes(plan, &options, &why);
    options.memory = aligned_alloc(64, (size + 63) / 64 * 64), options.memory_bytes = size - 1;
    memset(options.memory, 0, size);
    printf("%d", dgc_runner_new(plan, &options, &why) == NULL), printf(" %d\n", why.code);
    options.memory_bytes = size;
    DgcRunner* runner = dgc_runner_new(plan, &options, NULL);
    float *in = calloc(8 * 400, 4), out[5];
    printf("%d ", dgc_runner_run(runner, in, 1, out, &why));
    printf("%d\n", dgc_runner_run(runner, in, -1, out, &why));
    options.memory = NULL, options.height = 7, options.width = 9;
    dgc_runner_new(plan, &options, &why), printf("%s\n", why.text);
    options.height = options.width = 0, options.threads = 5000;
    dgc_runner_new(plan, &options, &why), printf("%s\n", why.text);
    options.threads = 0, options.isa = 99;
    dgc_runner_new(plan, &options, &why), printf("%s\n", why.text);
    dgc_runner_free(runner), dgc_plan_close(plan), dgc_plan_close(NULL), dgc_runner_free(NULL);
    free(options.memory), free(in);
    return argc - 2;
}
"""


PREPARING = r"""
#include <dgc_plan.h>
%s
int main(void) {
    const DgcPreprocessing how = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}, 0, 16, 3, 1};
    unsigned char pixels[16 * 16 * 3];
    float image[3 * 16 * 16];
    if (fread(pixels, 3, 256, stdin) != 256) return 1;
    normalise(&how, pixels, 3, 3, image), fwrite(image, 4, 768, stdout);
    normalise(&how, pixels, 1, 3, image), fwrite(image, 4, 768, stdout);
    normalise(&how, pixels, 1, 1, image), fwrite(image, 4, 256, stdout);
    return 0;
}
"""


def test_the_page_s_normalising_in_c_gives_the_bits_of_numpy(
    flags: list[str], tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    code = page.partition("```c\n")[2].partition("```")[0]
    (tmp_path / "x.c").write_text("#include <stdio.h>\n" + PREPARING % code)
    built = run([COMPILERS[0], "-std=c99", *STRICT, "x.c", *flags, "-o", "x"], tmp_path)
    assert built.returncode == 0, built.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    done = subprocess.run(
        [tmp_path / "x"], input=pixels.tobytes(), capture_output=True, check=True, timeout=GUARD
    )
    how = dgc.runtime.Preprocessing(None, 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    grey = pixels.reshape(-1)[:256].reshape(16, 16)
    wanted = [how.normalise(pixels), how.normalise(grey), how.normalise(grey, 1)]
    assert done.stdout == b"".join(x.tobytes() for x in wanted)


@pytest.mark.parametrize("compiler", COMPILERS[:1])
def test_the_rest_of_the_header(
    compiler: str, folder: Path, flags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rest.c").write_text(REST)
    built = run([compiler, "-std=c11", *STRICT, "rest.c", *flags, "-o", "rest"], tmp_path)
    assert built.returncode == 0, built.stderr
    done = run(["./rest", folder / "model.dgc"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "1 5 e 1",
        "0 8 2",
        "1 1",
        "1 2",
        "0 2",
        "it has no program for images of 7 x 9 pixels: export it again with --size 7x9",
        "5000 threads, 1 images: should be 1 to 1024, 1 to 1048576",
        "this machine cannot execute kernels of level 98",
    ]
    data = (folder / "model.dgc").read_bytes()
    (tmp_path / "cut.dgc").write_bytes(data[:-64])
    done = run(["./rest", "cut.dgc"], tmp_path)
    size = len(data)
    line = f"4 {size - 64} bytes, and its header says {size}: copy it again"
    assert done.stdout.splitlines() == [line]


def test_the_header_stands_alone_in_both_languages(tmp_path: Path) -> None:
    for compiler, language in ((COMPILERS[0], "c"), (COMPILERS[0], "c++")):
        header = dgc.runtime.header() / "dgc_plan.h"
        done = run([compiler, "-x", language, *STRICT, "-fsyntax-only", header], tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
