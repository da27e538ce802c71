"""What is released: versions that agree, wheels as they should be, and a runtime that stands alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import dgc
from dgc.kernels.cpu import library
from dgc.runtime import native
from release import dist
from tests.plan_files import images, network
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert {cited[1], dist.version()} == {dgc.__version__}


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


def test_a_wheel_that_is_wrong_is_refused(tmp_path: Path) -> None:
    built = native.library().read_bytes()
    files = dist.runtime_files(built)
    del files["dgc_runtime/dgc_plan.h"]
    wheel = dist.write_wheel(tmp_path, "dgc_runtime", "py3-none-any", files)
    with pytest.raises(SystemExit, match="tag is not that of its library; the header is missing"):
        dist.check(wheel)
