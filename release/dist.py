"""`make dist`: everything that is released, built and checked into dist/.

    python -m release.dist [--out dist] [--wheel FILE] [--arm64-library FILE]

An sdist; a wheel of dgcctl and one of dgc-runtime (plan files alone: NumPy is all it needs) for
this platform, and for arm64 where a library for it is given or aarch64-linux-gnu-g++ is there to
make one. What could not be made is named at the end.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "dgc/kernels/cpu/_dgc_native.so"
CROSS = "aarch64-linux-gnu-g++"
TALK, ERRORS = "dgc/talk.py", "dgc/errors.py"
EXAMPLES = ("plan.c", "plan.cpp")  # the only sources of C and C++ in a wheel
ALONE = ("dgc.runtime", "dgc.talk", "dgc.errors")  # what the runtime imports, under its own name

ABOUT = """\
# dgc_runtime

Plan files, which `dgcctl export` writes: trained networks that run without PyTorch.

    import dgc_runtime

    plan = dgc_runtime.load("model.dgc", threads=2)
    logits = plan(images)  # float32 (B, C, H, W); prepared as plan.preprocessing says

On the command line (`predict` needs the extra `images`, which brings Pillow):

    python -m dgc_runtime info model.dgc
    python -m dgc_runtime predict model.dgc photo.jpg
    python -m dgc_runtime where     # the header, the library and examples, for C and C++
"""


def version() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    assert found
    return found[1]


def glibc_of(library: Path | bytes) -> str:
    """The newest glibc that a library asks for, as a platform tag has it: "2_34"."""
    data = library if isinstance(library, bytes) else library.read_bytes()
    asked = {tuple(map(int, m.split(b"."))) for m in re.findall(rb"GLIBC_(\d+\.\d+)", data)}
    return "_".join(map(str, max({*asked, (2, 17)})))


def tag_of(library: bytes) -> str:
    machine = {0x3E: "x86_64", 0xB7: "aarch64"}[int.from_bytes(library[18:20], "little")]
    return f"py3-none-manylinux_{glibc_of(library)}_{machine}"


def write_wheel(folder: Path, name: str, tag: str, files: dict[str, bytes]) -> Path:
    """A wheel of `files`, its WHEEL and RECORD written anew."""
    info = f"{name}-{version()}.dist-info"
    files = {key: data for key, data in files.items() if not key.endswith("/RECORD")}
    head = "Wheel-Version: 1.0\nGenerator: release.dist\nRoot-Is-Purelib: false\n"
    files[f"{info}/WHEEL"] = f"{head}Tag: {tag}\n".encode()
    lines = []
    for key, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{key},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = ("".join(lines) + f"{info}/RECORD,,\n").encode()
    path = folder / f"{name}-{version()}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, data in files.items():
            entry = zipfile.ZipInfo(key, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o755 if key.endswith(".so") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def read_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def runtime_files(library: bytes) -> dict[str, bytes]:
    """The package dgc_runtime: the sources of dgc.runtime under a name of their own."""

    def renamed(path: Path) -> bytes:
        text = path.read_text(encoding="utf-8")
        text = text.replace("dgc.talk", "dgc_runtime.talk").replace(
            "dgc.errors", "dgc_runtime.errors"
        )
        return text.replace("dgc.runtime", "dgc_runtime").encode()

    sources = [*sorted((ROOT / "dgc" / "runtime").glob("*.py")), ROOT / TALK, ROOT / ERRORS]
    files = {f"dgc_runtime/{path.name}": renamed(path) for path in sources}
    files["dgc_runtime/_dgc_native.so"] = library
    for name in EXAMPLES:
        files[f"dgc_runtime/examples/{name}"] = renamed(ROOT / "examples" / name)
    files["dgc_runtime/dgc_plan.h"] = (ROOT / "dgc/kernels/cpu/src/plan/dgc_plan.h").read_bytes()
    info = f"dgc_runtime-{version()}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: dgc-runtime\nVersion: {version()}\nLicense: MIT\n"
        "Summary: Plan files of dgcctl, run with NumPy alone\nRequires-Python: >=3.11\n"
        "Requires-Dist: numpy>=2.2.1\nProvides-Extra: images\n"
        'Requires-Dist: pillow>=10.3; extra == "images"\n'
        f"Description-Content-Type: text/markdown\n\n{ABOUT}"
    ).encode()
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    return files


def cross_library(folder: Path) -> Path | None:
    """The kernels for arm64, where the compiler for them is there."""
    if not shutil.which(CROSS):
        return None
    words = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    words += [f"-DCMAKE_CXX_COMPILER={CROSS}", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *words], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel"], check=True)
    return folder / "_dgc_native.so"


def check(wheel: Path) -> None:
    """Raises SystemExit where a wheel is not what it should be."""
    files = read_wheel(wheel)
    library = next(data for name, data in files.items() if name.endswith("_dgc_native.so"))
    wrong = [
        what
        for what, bad in {
            "its tag is not that of its library": tag_of(library) not in wheel.name,
            "its library needs an OpenMP of its own": b"libgomp.so.1\0\0" in library[:4096],
            "its library needs the C++ library": b"libstdc++.so" in library,
            "the header is missing": not _has(files, "dgc_plan.h"),
            "an example is missing": not all(_has(files, f"/examples/{n}") for n in EXAMPLES),
            "sources of the kernels are in it": any(
                n.endswith((".cpp", ".cmake")) and "/examples/" not in n for n in files
            ),
            "a second shared library is in it": sum(".so" in Path(n).name for n in files) != 1,
            "the licence is missing": not _has(files, "LICENSE"),
        }.items()
        if bad
    ]
    if wrong:
        raise SystemExit(f"error: {wheel.name}: {'; '.join(wrong)}")


def _has(files: dict[str, bytes], end: str) -> bool:
    return any(name.endswith(end) for name in files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--wheel", type=Path, help="of this platform, built before")
    parser.add_argument("--arm64-library", type=Path, help="built before")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "-w"]
    with tempfile.TemporaryDirectory() as scratch:
        wheel = given.wheel
        if wheel is None:
            subprocess.run([*pip, scratch, str(ROOT)], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
        files = read_wheel(wheel)
        libraries = {"x86-64": files[LIBRARY]}
        arm = given.arm64_library or cross_library(Path(scratch, "arm64"))
        if arm:
            libraries["arm64"] = arm.read_bytes()
        made = []
        for library in libraries.values():
            tag = tag_of(library)
            made.append(write_wheel(given.out, "dgcctl", tag, {**files, LIBRARY: library}))
            made.append(write_wheel(given.out, "dgc_runtime", tag, runtime_files(library)))
    for path in made:
        check(path)
    made.append(sdist(given.out))
    for path in made:
        print(f"{path.name}  {path.stat().st_size / 1e6:.1f} MB")
    if "arm64" not in libraries:
        print(f"not made: arm64 ({CROSS} is not installed)")
    return 0


def sdist(folder: Path) -> Path:
    """What git has, but for tests' pictures and studies; it builds on a machine with a compiler."""
    name = f"dgcctl-{version()}"
    path = folder / f"{name}.tar.gz"
    words = [
        "git",
        "-C",
        ROOT,
        "archive",
        "--format=tar.gz",
        f"--prefix={name}/",
        "-o",
        path,
        "HEAD",
    ]
    subprocess.run(words, check=True)
    with tarfile.open(path) as archive:
        names = archive.getnames()
    for needed in (
        "pyproject.toml",
        "CMakeLists.txt",
        "dgc/kernels/cpu/src/kernels.cmake",
        "LICENSE",
    ):
        if f"{name}/{needed}" not in names:
            raise SystemExit(f"error: {path.name}: {needed} is missing")
    return path


if __name__ == "__main__":
    sys.exit(main())
