"""Names of files as text and back, and the quarantine file that holds them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgc.data import folder
from dgc.data.verify import write_quarantine
from dgc.errors import DataError
from dgc.run.file_names import unwritten, written

NASTY = [
    b"line\nbreak.jpg", b"tab\there.jpg", b"caf\xe9.jpg", b"\xff\xfe", b"back\\slash", b"\\x41", b"#first.jpg",
    b" space ", b"  ", b"bell\x07\x1b]0;title\x07.jpg", "caf\u00e9 \u4e2d.jpg".encode(),
    "\u202eevil\u2028\x85.jpg".encode(),
    b"return\r.jpg", b"#", b"\\", b"a\x7f",
]  # fmt: skip


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_every_name_has_one_text_and_comes_back(name: bytes) -> None:
    text = written(os.fsdecode(name))
    assert os.fsencode(unwritten(text)) == name
    assert all(
        letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co") for letter in text
    )
    text.encode()  # no half of a surrogate


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("n01440764/ILSVRC2012 (1).JPEG", "café", "中文", "a-b_c.d"):
        assert written(name) == name == unwritten(name)
    assert written("caf\udce9\n\\") == "caf\\xe9\\n\\\\"


def test_a_quarantine_file_holds_every_name(tmp_path: Path) -> None:
    names = [os.fsdecode(b"train/a/" + name) for name in NASTY] + [
        os.fsdecode(name) for name in NASTY
    ]
    bad = [{"file": written(name), "reason": "cut\nshort\t!"} for name in names]
    write_quarantine(tmp_path / "bad.txt", bad)
    assert folder.read_quarantine(tmp_path / "bad.txt") == frozenset(names)
    assert (tmp_path / "bad.txt").read_text("utf-8").count("\n") == len(names) + 1


def test_a_list_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(
        b"# mine\r\ntrain/a/1.jpg\r\n\n  train/a/2.jpg  \ntrain/a/caf\xe9.jpg\tdamaged"
    )
    expected = {"train/a/1.jpg", "train/a/2.jpg", os.fsdecode(b"train/a/caf\xe9.jpg")}
    assert folder.read_quarantine(tmp_path / "bad.txt") == expected
    (tmp_path / "bad.txt").write_text("fine.jpg\ntrain\\dog\\1.jpg\n")
    with pytest.raises(DataError) as caught:
        folder.read_quarantine(tmp_path / "bad.txt")
    assert str(caught.value).startswith(f"{tmp_path}/bad.txt:2: \\d is no escape")
