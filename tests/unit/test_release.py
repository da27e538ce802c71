"""What is released: versions that agree, wheels as they should be, and a runtime that stands alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest

import dgc
import dgc.runtime
from dgc.kernels.cpu import library
from dgc.runtime import native
from release import dist
from tests.plan_files import images, network
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
COMPILERS = [name for name in ("gcc", "clang", "clang-14") if shutil.which(name)]
ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    wheels = re.findall(r"(?:dgcctl|dgc_runtime)-([^-\s]+)-py3-none", page)
    assert len(wheels) >= 4
    assert {cited[1], dist.version(), *wheels} == {dgc.__version__}


ALONE = """
import sys
import numpy as np
import dgc_runtime
plan = dgc_runtime.load(sys.argv[1], threads=1)
np.save(sys.argv[3], plan(np.load(sys.argv[2])))
assert not [m for m in ("dgc", "torch", "PIL") if m in sys.modules]
"""


def test_the_runtime_s_wheel_stands_alone(tmp_path: Path) -> None:
    built = native.library().read_bytes()
    wheel = dist.write_wheel(tmp_path, "dgc_runtime", dist.tag_of(built), dist.runtime_files(built))
    dist.check(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # the file itself: where the package importlib_metadata is loaded too, it answers for importlib.metadata,
    # and where the description stands then depends on its version
    (file,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    told = message_from_bytes(file.read_bytes())
    assert told.get_all("Provides-Extra") == ["images"]
    assert told["Description-Content-Type"] == "text/markdown"
    for word in ("info", "predict", "where"):  # what the package's page says can be asked of it
        assert f"python -m dgc_runtime {word}" in str(told.get_payload())
    np.save(tmp_path / "x.npy", images().numpy())
    file = dgc.save_plan(network(), images(), tmp_path / "m.dgc")
    words = [sys.executable, "-c", ALONE, file, tmp_path / "x.npy", tmp_path / "y.npy"]
    done = subprocess.run(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = dgc.compile_for_inference(network())(images()).numpy()
    assert np.array_equal(np.load(tmp_path / "y.npy"), wanted)


@pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")
def test_the_runtime_s_wheel_has_what_a_c_program_needs(tmp_path: Path) -> None:
    built = native.library().read_bytes()
    wheel = dist.write_wheel(tmp_path, "dgc_runtime", dist.tag_of(built), dist.runtime_files(built))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    found = dict(line.split(maxsplit=1) for line in asked(tmp_path, "where").splitlines())
    site = tmp_path / "site" / "dgc_runtime"
    assert found == {
        "header": str(site / "dgc_plan.h"),
        "library": str(site / "_dgc_native.so"),
        "C": str(site / "examples" / "plan.c"),
        "C++": str(site / "examples" / "plan.cpp"),
    }
    assert "$(python -m dgc_runtime --cflags)" in Path(found["C"]).read_text(encoding="utf-8")
    images().numpy().tofile(tmp_path / "images")
    file = dgc.save_plan(network(), images(), tmp_path / "m.dgc")
    flags = shlex.split(asked(tmp_path, "--cflags"))
    program = tmp_path / "plan"
    subprocess.run([COMPILERS[0], found["C"], *flags, "-o", program], check=True, timeout=GUARD)
    subprocess.run(
        [program, file, tmp_path / "images", tmp_path / "out"], check=True, timeout=GUARD
    )
    with pytest.MonkeyPatch.context() as patch:  # a C program computes by the widest set
        patch.delenv("DGC_NATIVE_ISA", raising=False)
        wanted = dgc.runtime.load(file, threads=1)(images().numpy())
    assert np.array_equal(np.fromfile(tmp_path / "out", np.float32).reshape(3, 5), wanted)


def asked(folder: Path, word: str) -> str:
    """What the package of the wheel in `folder`/site answers."""
    done = subprocess.run(
        [sys.executable, "-m", "dgc_runtime", word],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "site")},
        capture_output=True, text=True, check=True, timeout=GUARD,
    )  # fmt: skip
    return done.stdout


def test_a_wheel_that_is_wrong_is_refused(tmp_path: Path) -> None:
    built = native.library().read_bytes()
    files = dist.runtime_files(built)
    del files["dgc_runtime/dgc_plan.h"], files["dgc_runtime/examples/plan.cpp"]
    files["dgc_runtime/api.cpp"] = b""
    wheel = dist.write_wheel(tmp_path, "dgc_runtime", "py3-none-any", files)
    with pytest.raises(SystemExit) as found:
        dist.check(wheel)
    assert str(found.value).partition(": ")[2].partition(": ")[2] == (
        "its tag is not that of its library; the header is missing; an example is missing;"
        " sources of the kernels are in it"
    )
