"""rerun: which compiled kernels a restored source gets, and what is said before training where it
cannot have them.
"""

import shutil
import subprocess

import pytest

import dgc
from dgc.errors import UsageError
from dgc.kernels import sources
from dgc.run import provenance
from dgc.run.files import read_json, write_json
from dgcctl.cli import rerun as command
from dgcctl.core.compare.rundiff import diff_runs
from dgcctl.core.repro import circumstances, kernels
from dgcctl.core.repro import repetition as again
from dgcctl.core.runs.record import read_record
from tests.unit.run_factory import make_run

PACKAGE = sources.Path(dgc.__file__).resolve().parent
needs_cmake = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and a C++ compiler"
)


def quietly(_):
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path):
    """Restored code of an older state: one source, and a build of a moment that makes a library of
    it.
    """
    folder = tmp_path / "tree" / "dgc" / "native" / "src"
    folder.mkdir(parents=True)
    (folder / "api.cpp").write_text('extern "C" int dgc_abi_version() { return 2; }\n')
    (tmp_path / "tree" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(small LANGUAGES CXX)\n"
        "add_library(dgc_native MODULE dgc/native/src/api.cpp)\n"
        'set_target_properties(dgc_native PROPERTIES PREFIX "" OUTPUT_NAME "_dgc_native")\n'
    )
    return tmp_path / "tree"


def library_saying(path, digest):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\0dgc kernels built from " + digest.encode() + b" by GNU 1.2\0rest")
    return path


def install(tmp_path, monkeypatch, digest):
    """An installed package whose library says that it was built from `digest`."""
    package = tmp_path / "site" / "dgc"
    library_saying(package / "kernels" / "cpu" / "_dgc_native.so", digest)
    monkeypatch.setattr(dgc, "__file__", str(package / "__init__.py"))


# --- digests --------------------------------------------------------------------------------------


def test_the_built_library_carries_the_digest_of_the_sources_beside_it():
    library = sources.library_of(PACKAGE)
    if library is None:
        pytest.skip("the kernels were not built: no C++ compiler")
    built = sources.built_from(library)
    assert built.digest == sources.sources_digest(PACKAGE)
    assert built.compiler.split()[0] in ("GNU", "Clang", "AppleClang")


def test_a_changed_flag_is_another_digest(tmp_path):
    shutil.copytree(PACKAGE / "kernels/cpu/src", tmp_path / "kernels/cpu/src")
    assert sources.sources_digest(tmp_path) == sources.sources_digest(PACKAGE)
    flags = tmp_path / "kernels/cpu/src/kernels.cmake"
    flags.write_text(flags.read_text().replace("-O3", "-O2"))
    assert sources.sources_digest(tmp_path) != sources.sources_digest(PACKAGE)


def test_a_package_without_sources_takes_the_digest_from_its_library(tmp_path, monkeypatch):
    """So the same code has the same digest in a checkout and in a wheel."""
    wheel = tmp_path / "wheel" / "dgc"
    shutil.copytree(PACKAGE, wheel, ignore=shutil.ignore_patterns("src", "*.so", "__pycache__"))
    here = provenance.code_digest()
    monkeypatch.setattr(dgc, "__file__", str(wheel / "__init__.py"))
    assert sources.kernels_digest(wheel) == "none"
    assert provenance.code_digest() != here
    library_saying(wheel / "kernels" / "cpu" / "_dgc_native.so", sources.sources_digest(PACKAGE))
    assert provenance.code_digest() == here


# --- which kernels --------------------------------------------------------------------------------


def test_the_installed_kernels_are_taken_where_they_were_built_from_the_same_sources(
    tree, tmp_path, monkeypatch
):
    install(tmp_path, monkeypatch, sources.sources_digest(tree / "dgc"))
    found = kernels.put_into(tree, quietly)
    assert found.words == "the installed ones"
    assert (tree / "dgc/native/_dgc_native.so").read_bytes() == found.library.read_bytes()


@needs_cmake
def test_others_are_built_once_and_kept(tree, tmp_path, monkeypatch, cache):
    install(tmp_path, monkeypatch, "0" * 64)
    said = []
    first = kernels.put_into(tree, said.append)
    assert first.words.startswith("built now, kept in ")
    assert said == [
        "the installed kernels are of other sources: building those of this run's code (about a"
        " minute)"
    ]
    import ctypes

    # a copy is loaded: the tree's is written over below, and a process that had it mapped would crash
    loaded = shutil.copy(tree / "dgc/native/_dgc_native.so", tmp_path / "loaded.so")
    assert ctypes.CDLL(str(loaded)).dgc_abi_version() == 2
    assert [path.name for path in first.library.parent.iterdir()] == ["_dgc_native.so"]
    second = kernels.put_into(tree, said.append)
    assert second.words.startswith("built before, kept in ")
    assert len(said) == 1


@needs_cmake
def test_a_build_that_fails_says_why_and_leaves_nothing(tree, tmp_path, monkeypatch, cache):
    install(tmp_path, monkeypatch, "0" * 64)
    (tree / "dgc/native/src/api.cpp").write_text("int broken(\n")
    found = kernels.put_into(tree, quietly)
    assert found.library is None
    assert found.words.startswith("they cannot be built: ")
    assert "api.cpp" in found.words
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not (tree / "dgc/native/_dgc_native.so").exists()


def test_without_a_compiler_one_line_says_what_to_do(tree, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "0" * 64)
    monkeypatch.setattr(
        kernels.shutil, "which", lambda name, path=None: "/bin/cmake" if name == "cmake" else None
    )
    found = kernels.put_into(tree, quietly)
    assert found == kernels.FoundKernels(
        None,
        "the installed kernels are of other sources, and there is no C++ compiler to build them:"
        " install one, e.g. g++",
    )
    monkeypatch.setattr(kernels.shutil, "which", lambda name, path=None: None)
    assert kernels.put_into(tree, quietly).words.endswith(
        "there is no cmake to build them: `pip install cmake`"
    )


def test_code_without_kernels_gets_none(tmp_path):
    (tmp_path / "dgc").mkdir()
    assert kernels.put_into(tmp_path, quietly) == kernels.FoundKernels(
        None, "this code has no kernels"
    )


# --- what is said before training -----------------------------------------------------------------

HERE = {
    "torch": {"torch": "2.99", "cpu_capability": "AVX512"},
    "native": {"available": True, "isa": "avx512", "supported": ["baseline", "avx2", "avx512"]},
}


def recorded(tmp_path, **env):
    run = make_run(tmp_path / "run")
    device = f"cpu ({provenance.cpu_name()})"
    torch = {"version": "2.99", "cpu_capability": "AVX512"}
    write_json(run.env, {"device": device, "kernels": "avx512", "torch": torch} | env)
    return read_record(run)


def test_nothing_is_said_where_all_is_as_it_was(tmp_path):
    facts = recorded(tmp_path, packages={"numpy": provenance.packages()["numpy"]})
    assert circumstances.changes(facts, HERE, "") == []
    assert circumstances.level(facts, HERE) == "avx512"


def test_a_narrower_instruction_set_of_the_record_is_used_again(tmp_path):
    facts = recorded(tmp_path, kernels="avx2")
    assert circumstances.level(facts, HERE) == "avx2"
    assert circumstances.changes(facts, HERE, "") == []


def test_what_differs_is_named_with_its_reason(tmp_path):
    facts = recorded(
        tmp_path,
        kernels="neon",
        device="cpu (another)",
        torch={"version": "2.10", "cpu_capability": "AVX2"},
        packages={"numpy": "1.0"},
    )
    assert circumstances.changes(facts, HERE, "") == [
        "kernels was neon, is avx512 (this machine has baseline, avx2, avx512)",
        "torch was 2.10, is 2.99",
        "cpu_capability was AVX2, is AVX512",
        f"device was cpu (another), is cpu ({provenance.cpu_name()})",
        f"numpy was 1.0, is {provenance.packages()['numpy']}",
    ]


def test_a_run_with_kernels_and_none_here_says_which_and_why(tmp_path):
    without = {**HERE, "native": {"available": False, "why_not": "not built"}}
    facts = recorded(tmp_path)
    assert circumstances.changes(facts, without, "no compiler") == [
        "kernels was avx512, is none (no compiler)"
    ]
    assert circumstances.changes(facts, without, "") == ["kernels was avx512, is none (not built)"]


def test_a_record_of_plain_pytorch_is_kept_from_the_kernels_that_are_here(tmp_path):
    facts = recorded(tmp_path, kernels="none")
    newer = {**HERE, "native": HERE["native"] | {"machine_features": []}}
    assert circumstances.level(facts, newer) == "none"
    assert circumstances.changes(facts, newer, "") == []
    wanted = ["kernels was none, is avx512 (this machine has baseline, avx2, avx512)"]
    assert circumstances.changes(facts, HERE, "") == wanted


def test_kernels_of_another_compiler_are_named(tmp_path):
    facts = recorded(tmp_path, kernels_built_from="1 by GNU 12")
    assert circumstances.changes(facts, HERE, "", sources.Built("1", "GNU 12")) == []
    assert circumstances.changes(facts, HERE, "", sources.Built("1", "GNU 13")) == [
        "kernels were built from 1 by GNU 12, now from 1 by GNU 13"
    ]


def test_what_held_pytorch_back_holds_it_back_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    monkeypatch.setenv("DGC_NATIVE_ISA", "baseline")
    old = again._environment(recorded(tmp_path / "a"))
    assert (old["MKL_ENABLE_INSTRUCTIONS"], "DGC_NATIVE_ISA" in old) == ("AVX2", False)
    now = again._environment(
        recorded(tmp_path / "b", instruction_limits={"ATEN_CPU_CAPABILITY": "avx2"})
    )
    assert (now["ATEN_CPU_CAPABILITY"], "MKL_ENABLE_INSTRUCTIONS" in now) == ("avx2", False)


def test_what_older_records_lack_is_no_difference(tmp_path):
    old = recorded(tmp_path / "a")
    new = recorded(tmp_path / "b", kernel_features=["vnni"], kernels_built_from="1 by GNU 12")
    other = recorded(tmp_path / "c", kernel_features=["vnni"], kernels_built_from="2 by GNU 12")
    assert diff_runs(old, new).section("environment") == []
    assert [row.key for row in diff_runs(new, other).section("environment")] == [
        "kernels_built_from"
    ]


def test_a_record_of_plain_pytorch_or_of_a_gpu_asks_for_no_kernels(tmp_path):
    assert not circumstances.uses_kernels(recorded(tmp_path / "a", kernels="none"))
    assert not circumstances.uses_kernels(recorded(tmp_path / "b", device="NVIDIA H100"))


def test_where_nobody_can_be_asked_a_difference_is_refused_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    agree = command._asking("r1", allow_change=False)
    agree([])
    wanted = (
        "r1: a was 1, is 2 .and 1 more., so other bits are to be expected: nothing was run;"
        " --allow-change runs"
    )
    with pytest.raises(UsageError, match=wanted):
        agree(["a was 1, is 2", "b was 3, is 4"])
    command._asking("r1", allow_change=True)(["a was 1, is 2"])
    assert capsys.readouterr().err.count("r1: a was 1, is 2") == 2


# --- the installed code, by its digest ------------------------------------------------------------


def test_without_a_checkout_the_installed_code_runs_if_it_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(again.gitstate, "toplevel", lambda folder: None)
    facts = recorded(tmp_path)
    said = []
    facts.git.update(commit=None, code=provenance.code_digest())
    with again._code_of(facts, None, said.append) as tree:
        assert tree == again._own_code()
    assert said == ["code: the installed one, whose digest is that of the record"]
    facts.git.update(commit="1" * 40, code="another")
    wanted = (
        "no git checkout here and the installed code is another one.*run this inside the repository"
    )
    with pytest.raises(UsageError, match=wanted):
        again._code_of(facts, None, quietly)


def test_a_refused_rerun_leaves_no_run_behind(tmp_path):
    facts = recorded(tmp_path / "runs")
    write_json(facts.run.git, {"commit": None, "code": "another"})
    folder = tmp_path / "again"
    with pytest.raises(UsageError, match="no git commit was recorded"):
        again.repeat(facts.run, folder)
    assert not folder.exists()
    assert read_json(facts.run.git)["commit"] is None


def test_a_library_built_by_cmake_counts_as_python_does(tmp_path):
    """The configure step alone, without a build: the digest that CMake writes into the library."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    root = PACKAGE.parent
    words = ["cmake", "-S", root, "-B", tmp_path, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    subprocess.run(words, check=True, capture_output=True)
    assert sources.sources_digest(PACKAGE) in (tmp_path / "compile_commands.json").read_text()
    subprocess.run([*words, "-DDGC_WIDE=ON"], check=True, capture_output=True)
    assert (
        f"{sources.sources_digest(PACKAGE)}+wide"
        in (tmp_path / "compile_commands.json").read_text()
    )
