"""DGC_NATIVE_ISA: levels, features on top of them, none; what a machine lacks; what is recorded of
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.errors import UsageError
from dgc.kernels import cpu
from dgc.kernels.cpu import isa, library
from dgc.train.save import describe_changes
from dgcctl.core.diagnosis import Level, _native

MACHINE = {"baseline": (), "avx2": ("vnni",), "avx512": ("vnni", "bf16")}
needs_kernels = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words as an x86 machine reads them, wherever this runs."""
    monkeypatch.setattr(isa, "LEVELS", ("baseline", "avx2", "avx512"))
    monkeypatch.setattr(isa, "_OLD_NAMES", {})
    isa._read.cache_clear()


@pytest.mark.parametrize(
    ("text", "level", "features"),
    [
        ("", "avx512", ("vnni", "bf16")),
        ("avx512", "avx512", ("vnni", "bf16")),
        ("avx2", "avx2", ("vnni",)),
        ("baseline", "baseline", ()),
        ("avx512,-vnni", "avx512", ("bf16",)),
        ("avx512, bf16", "avx512", ("vnni", "bf16")),
        ("-vnni,-bf16", "avx512", ()),
        ("avx512,-amx", "avx512", ("vnni", "bf16")),
    ],
)
def test_levels_and_features(text: str, level: str, features: tuple[str, ...]) -> None:
    choice = isa.choose(text, MACHINE)
    assert choice is not None
    assert (choice.level, choice.features) == (level, features)


def test_none_is_plain_pytorch() -> None:
    assert isa.choose("none", MACHINE) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "avx513",
            (
                "unknown word 'avx513' (did you mean avx512?): levels are baseline, avx2, avx512,"
                " neon, none; "
            ),
        ),
        ("avx512,-vni", "unknown word 'vni' (did you mean vnni?)"),
        ("AVX2", "unknown word 'AVX2'"),
        ("neon", "this machine has baseline, avx2, avx512"),
        ("avx2,bf16", "avx2 has no bf16 on this machine (it has vnni)"),
        ("baseline,vnni", "baseline has no vnni on this machine (it has none of these features)"),
        ("amx", "avx512 has no amx on this machine (it has vnni, bf16)"),
        ("avx2,avx512", "one level at most, given avx2 and avx512"),
        ("vnni,-vnni", "vnni is asked for and left out"),
    ],
)
def test_what_cannot_be_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        isa.choose(text, MACHINE)
    assert str(error.value).startswith(f"DGC_NATIVE_ISA={text}: {said}")
    assert "\n" not in str(error.value)


def test_on_arm64_the_one_level_is_neon_and_its_old_name_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isa, "LEVELS", ("neon",))
    monkeypatch.setattr(isa, "_OLD_NAMES", {"baseline": "neon"})
    isa._read.cache_clear()
    for text in ("", "neon", "baseline"):
        choice = isa.choose(text, {"neon": ()})
        assert choice is not None
        assert (choice.level, choice.index) == ("neon", 0)
    isa._read.cache_clear()


@needs_kernels
def test_features_are_those_that_the_processor_tells() -> None:
    """Held against Linux's own list, where there is one."""
    info = Path("/proc/cpuinfo")
    flags = next(
        (line.split() for line in info.read_text().splitlines() if line.startswith("flags")), None
    )
    if flags is None or "avx512bw" not in flags:
        pytest.skip("needs an x86 machine with AVX-512, whose features Linux lists")
    handle = library._open()[0]
    assert handle is not None
    found = library._machine(handle)
    assert found["avx512"] == tuple(
        name
        for name, wanted in (
            ("vnni", {"avx512_vnni"}),
            ("bf16", {"avx512_bf16"}),
            ("amx", {"amx_tile", "amx_int8", "amx_bf16"}),
        )
        if wanted <= set(flags)
    )
    assert found["avx2"] == (("vnni",) if "avx_vnni" in flags else ())
    assert found["baseline"] == ()


@needs_kernels
def test_what_is_used_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(isa.VARIABLE, "baseline")
    facts = library.facts()
    assert (facts["kernels"], facts["kernel_features"]) == ("baseline", [])
    assert " by " in str(facts["kernels_built_from"])
    monkeypatch.setenv(isa.VARIABLE, "none")
    assert library.facts() == {"kernels": "none"}
    assert cpu.describe()["why_not"] == "DGC_NATIVE_ISA=none asks for plain PyTorch"
    assert cpu.describe()["available"] is False


STANDS = {
    "recipe": "name: demo\n",
    "world_size": 1,
    "torch": "2",
    "device": "cpu",
    "cpu_capability": "X",
    "memory_format": "contiguous",
    "data": "d",
    "code": "c",
    "packages": {},
}


def test_old_records_stay_comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    from dgc.recipe.load import dump_recipe, find_recipe, load_recipe

    stands = STANDS | {"recipe": dump_recipe(load_recipe(find_recipe("demo")))}
    now = stands | {
        "kernels": "avx512",
        "kernel_features": ["vnni"],
        "kernels_built_from": "1 by GNU 12",
    }
    assert describe_changes(stands | {"kernels": "avx512"}, now) == []
    assert describe_changes(now, now | {"kernel_features": []}) == []  # no kernel uses them yet
    assert describe_changes(stands | {"kernels": "baseline"}, now | {"kernels": "neon"}) == []
    assert describe_changes(stands | {"kernels": "avx2"}, now) == ["kernels was avx2, is avx512"]
    assert describe_changes(now, now | {"kernels_built_from": "1 by GNU 13"}) == [
        "kernels built from 1 by GNU 12, now from 1 by GNU 13"
    ]


def test_the_doctor_says_which_features_and_what_is_wrong() -> None:
    facts = {"available": True, "isa": "avx512", "features": ["vnni", "bf16"], "threads": 2}
    assert _native(facts).value == "in use (isa avx512, features vnni bf16, threads 2)"
    wrong = _native({"available": False, "error": "DGC_NATIVE_ISA=x: unknown word 'x'"})
    assert (wrong.level, wrong.advice) == (Level.PROBLEM, "DGC_NATIVE_ISA=x: unknown word 'x'")
    old = _native(facts | {"stale": "built from other sources"})
    assert (old.level, old.value) == (
        Level.NOTE,
        "in use (isa avx512, features vnni bf16, threads 2), but old",
    )


@needs_kernels
def test_a_library_of_other_sources_is_called_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.stale() == ""
    monkeypatch.setattr(library, "sources_digest", lambda package: "0" * 64)
    assert library.stale().endswith(
        "was built from other sources than those beside it: `pip install -e .` builds it again"
    )


def test_a_wrong_word_is_refused_where_there_are_no_kernels_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "_open", lambda: (None, None, "not built"))
    monkeypatch.setenv("DGC_NATIVE_ISA", "avx513")
    with pytest.raises(UsageError, match="DGC_NATIVE_ISA=avx513: unknown word 'avx513'"):
        library.load()
    monkeypatch.setenv("DGC_NATIVE_ISA", "avx2")
    assert library.load() is None


def test_a_training_with_a_wrong_word_ends_with_2_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dgcctl", "train", "demo", "--runs-dir", str(tmp_path / "runs")],
        env={**os.environ, isa.VARIABLE: "avx513", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert errors[0].startswith("error: DGC_NATIVE_ISA=avx513: unknown word 'avx513'")
    assert not list((tmp_path / "runs").glob("2*"))
