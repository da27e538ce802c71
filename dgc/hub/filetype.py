"""What a file is, from its first bytes: so that a wrong one is called by its name. No torch,
nothing is parsed.
"""

from __future__ import annotations

import stat
from pathlib import Path

from dgc.errors import DataError, IntegrityError

HEAD = 64 * 1024
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

ZIP, LEGACY, PICKLE, TAR, NPY, SAFETENSORS = (
    "a zip archive",
    "a torch file of before 1.6",
    "a bare pickle",
    "a tar archive",
    "a NumPy .npy file",
    "a safetensors file",
)
_MAGIC = (
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", "an empty zip archive"),
    (TORCH_LEGACY_MAGIC, LEGACY),
    (b"\x93NUMPY", NPY),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"%PDF", "a PDF document"),
    (b"#!", "a script"),
)
_PAGES = (
    (b"quota exceeded", "a Google Drive quota page"),
    (b"virus scan warning", "the virus-scan page of Google Drive"),
    (b"google drive", "an HTML page from Google Drive"),
    (b"drive.google.com", "an HTML page from Google Drive"),
    (b"sign in to your account", "a Microsoft login page"),
    (b"login.microsoftonline", "a Microsoft login page"),
    (b"sharepoint", "an HTML page from OneDrive"),
    (b"onedrive", "an HTML page from OneDrive"),
)


def is_html(head: bytes) -> bool:
    """True where the first bytes are those of a web page (byte-order mark, blanks and comments
    allowed).
    """
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith(
        (b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml", b"<meta", b"<title")
    )


def sniff(head: bytes) -> str:
    """The kind in words, from the first HEAD bytes: 'a zip archive', 'a PNG image', 'an unknown
    kind of file'.
    """
    if not head:
        return "an empty file"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if is_html(head):
        return next((kind for mark, kind in _PAGES if mark in head.lower()), "an HTML page")
    return _sniff_structure(head)


def _sniff_structure(head: bytes) -> str:
    if head[257:262] == b"ustar":
        return TAR
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return PICKLE
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return SAFETENSORS
    if head[0] == 0x08 and len(head) > 2 and head[1] < 32 and head[2] == 0x12:
        return "an ONNX model"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON text"
    return "an unknown kind of file"


def read_head(path: Path) -> bytes:
    """The first HEAD bytes of a regular file; a directory, FIFO or device is called by its name and
    never opened.

    Raises DataError where there is no such file, IntegrityError where it is no regular file.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(HEAD)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give the path of a checkpoint file"
        ) from error
    raise IntegrityError(f"{path}: is {_special(mode)}, no checkpoint file")


def _special(mode: int) -> str:
    names = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO (named pipe)"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in names if test(mode)), "a device")
