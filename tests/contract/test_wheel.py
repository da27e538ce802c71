"""What is shipped: one wheel for every Python, without C++ sources; the sources in the sdist.

The slow test builds a wheel (it needs the build tools of pyproject.toml, which pip fetches); the
quick ones read what decides over it.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from dgc.kernels import sources

ROOT = Path(__file__).resolve().parents[2]


def look_inside(wheel: Path) -> None:
    """Raises AssertionError where a wheel is not as promised."""
    assert wheel.name.split("-")[2:4] == ["py3", "none"], wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        shipped = [
            name for name in names if name.endswith((".cpp", ".h", ".cmake", "CMakeLists.txt"))
        ]
        # C programs need it and the example, nothing else
        assert sorted(shipped) == ["dgc/runtime/dgc_plan.h", "dgc/runtime/examples/plan.cpp"]
        libraries = [name for name in names if Path(name).match(sources.LIBRARY)]
        assert libraries == ["dgc/kernels/cpu/_dgc_native.so"]
        assert sources.sources_digest(ROOT / "dgc").encode() in archive.read(libraries[0])
    assert "dgc/kernels/cpu/library.py" in names
    assert "dgc/recipes/demo.yaml" in names
    assert "dgc/runtime/examples/plan.c" in names


def test_one_wheel_serves_every_python_and_holds_no_sources_of_the_kernels() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]
    assert settings["py-api"] == "py3"
    assert settings["exclude"] == ["dgc/kernels/cpu/src/**"]
    linked = sources.library_of(ROOT / "dgc")
    if linked is not None:
        assert b"PyInit_" not in linked.read_bytes()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("dgcctl-1-cp311-cp311-linux_x86_64.whl", {}),
        ("dgcctl-1-py3-none-linux_x86_64.whl", {"dgc/kernels/cpu/src/api.cpp": b""}),
        ("dgcctl-1-py3-none-linux_x86_64.whl", {}),
        (
            "dgcctl-1-py3-none-linux_x86_64.whl",
            {"dgc/kernels/cpu/_dgc_native.so": b"of other sources"},
        ),
    ],
    ids=["bound to one Python", "with sources", "without kernels", "other kernels"],
)
def test_the_look_into_a_wheel_sees_what_is_wrong(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    with pytest.raises(AssertionError):
        look_inside(tmp_path / name)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it compiles the kernels
def test_the_built_wheel(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    look_inside(wheel)
