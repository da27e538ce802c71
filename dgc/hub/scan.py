"""The static inspection of a foreign file: every container opened, every pickle in it dry-run. No
torch.

    zip (torch >= 1.6)     one folder, stored members, data.pkl, data/<key>; sizes must fit what
                           the pickle claims
    legacy (torch < 1.6)   five pickles in a row, then the storages; must end exactly at the end of
                           the file
    tar, npz, npy, TorchScript, .pt2, bare pickles
                           no checkpoint of ours: looked into, so that a pickle that would execute
                           something is called by its name, and then refused for what they are

Nothing is unpacked, and what a header claims is compared with the bytes that are there before
anything is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from dgc.errors import IntegrityError, UnsafeFileError
from dgc.hub import filetype
from dgc.hub.pickle_parts import BoundedReader, Ordered, TensorSpec
from dgc.hub.pickles import DryRun, TooLongError, dry_run

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 16 << 20
_EOCD = struct.Struct("<4s4H2LH")
_TORCH_SMALL = (
    "byteorder",
    "version",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
)


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint file holds, as its pickle says and its size confirms;
    `sha256` is of the bytes that were looked at.

    Who has one need not look again: it goes from the download to the conversion, and the process
    that reads the weights compares the digest.
    """

    path: Path
    kind: str
    value: dict[Any, Any]
    file_bytes: int
    sha256: str


def inspect(path: Path) -> Inspection:
    """Look at a torch file without loading it.

    Raises UnsafeFileError (5) naming the global and its offset, IntegrityError (4) for a wrong
    kind, a broken file or a header that claims more than there is, DataError (3) where there is no
    file.
    """
    head = filetype.read_head(path)
    kind = filetype.sniff(head)
    # an empty file cannot be mapped
    if not head:
        _wrong_kind(path, kind)
    # Mapped, not read: of gigabytes that claim to be a checkpoint, only what is looked at is read.
    # All below goes by this one opening of the file, so that the digest is of what was inspected.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if kind == filetype.ZIP:
            program = _torch_zip(path, file, data)
        elif kind == filetype.LEGACY:
            program = _torch_legacy(path, data)
        else:
            # first by the danger in it, then by its kind: a
            # pickle that runs something is called by its name
            _look_for_danger(path, data, kind)
            _wrong_kind(path, kind)
        value, digest = _top_level(path, program), hashlib.sha256(data).hexdigest()
        return Inspection(path, kind, value, len(data), digest)


def _wrong_kind(path: Path, kind: str) -> NoReturn:
    advice = "fetch the file itself again"
    if kind == filetype.PLAN:  # it holds a program, and no weights by name
        advice = "`dgcctl predict --plan` runs it; else name the run or weights that it was made of"
    raise IntegrityError(f"{path}: looks like {kind}, not a PyTorch checkpoint; {advice}")


def _top_level(path: Path, program: DryRun) -> dict[Any, Any]:
    # a dict, or the ordered one that torch saves
    value = program.value.items if isinstance(program.value, Ordered) else program.value
    if type(value) is not dict:
        raise IntegrityError(
            f"{path}: holds a {type(program.value).__name__}, not a dict with a state_dict"
        )
    return value


# the legacy form


def _torch_legacy(path: Path, data: mmap.mmap) -> DryRun:
    window = BoundedReader(data, 0, len(data), path.name)
    # torch.save before 1.6 wrote: magic number, protocol version, machine, the content, and the
    # keys of the storages that follow it.
    programs = [dry_run(window, path.name) for _ in range(5)]
    _, _, system, program, keys = programs
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise IntegrityError(f"{path}: was not written on a little-endian machine")
    # the list of storages follows the pickle, and must be the same ones, each once
    if type(keys.value) is not list or sorted(map(str, keys.value)) != sorted(program.storages):
        raise IntegrityError(f"{path}: its list of storages does not match its pickle")
    at = window.tell()
    for key in keys.value:
        at = _legacy_block(path, data, at, program, key)
    # Bytes after the last storage are read by nobody, and a file of ours has none.
    if at != len(data):
        raise IntegrityError(f"{path}: {len(data) - at:,} bytes after the end of the checkpoint")
    return program


def _legacy_block(path: Path, data: mmap.mmap, at: int, program: DryRun, key: str) -> int:
    """One storage: int64 count, then the numbers. Returns where the next one starts."""
    # as the pickle claims it: what lies there must agree
    spec = program.storages[key]
    if at + 8 + spec.nbytes > len(data):
        raise IntegrityError(
            f"{path}: claims a storage of {spec.nbytes:,} bytes at offset {at}, but the file ends"
            f" at {len(data):,}"
        )
    if struct.unpack_from("<q", data, at)[0] != spec.numel:
        raise IntegrityError(
            f"{path}: storage {key} at offset {at} has not the {spec.numel:,} numbers it should"
        )
    return at + 8 + spec.nbytes


# the zip form


def _torch_zip(path: Path, file: BinaryIO, data: mmap.mmap) -> DryRun:
    _check_directory(path, data)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(path, archive, len(data))
            _refuse_other_zips(path, data, archive, members)
            program = _zip_program(path, archive, members)
            # Members are stored, not compressed, so this checks the CRC of each in one reading.
            bad = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise IntegrityError(f"{path}: broken zip archive ({str(error)[:100]})") from error
    if bad:
        raise IntegrityError(f"{path}: damaged (the checksum of {bad} does not match)")
    return program


def _check_directory(path: Path, data: mmap.mmap) -> None:
    """The end record alone says how many members there are:
    a million of them are refused before they are listed.
    """
    at = len(data) - _EOCD.size
    # Readers of zip search for this record from the end, and each stops somewhere else. A file in
    # which it is not at the very end can mean one thing here and another to torch.
    if at < 0 or data[at : at + 4] != b"PK\x05\x06":
        raise IntegrityError(
            f"{path}: the end of the zip archive is missing (cut file, or bytes after the end)"
        )
    _, _, _, _, count, size, offset, comment = _EOCD.unpack_from(data, at)
    # the values that mean: look into the larger record
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        count, size, offset = _zip64(path, data, at)
    if comment or count > MAX_MEMBERS or size > MAX_DIRECTORY or offset + size > at:
        raise IntegrityError(
            f"{path}: a zip directory of {count:,} members and {size:,} bytes at offset {offset:,}"
            f" is not believable (at most {MAX_MEMBERS:,} members)"
        )


def _zip64(path: Path, data: mmap.mmap, end: int) -> tuple[int, int, int]:
    where = (
        struct.unpack_from("<Q", data, end - 12)[0]
        # the locator is 20 bytes before the end record, and says where the larger one lies
        if data[end - 20 : end - 16] == b"PK\x06\x07"
        else len(data)
    )
    if where + 56 > end or data[where : where + 4] != b"PK\x06\x06":
        raise IntegrityError(f"{path}: broken zip64 end record")
    count, size, offset = struct.unpack_from("<3Q", data, where + 32)
    return int(count), int(size), int(offset)


def _members(path: Path, archive: zipfile.ZipFile, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Members by name; names are unique, nothing is compressed or encrypted, nothing overlaps."""
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    # a dict keeps the last of two equal names; other readers keep the first
    if len(members) != len(infos):
        raise IntegrityError(f"{path}: two members of the zip archive have the same name")
    # Overlapping members are how a zip bomb grows, and how one name can have two contents.
    at = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if (
            # bit 0: encrypted
            info.flag_bits & 1
            or info.header_offset < at
            or info.header_offset + info.compress_size > file_bytes
        ):
            raise IntegrityError(
                f"{path}: member {info.filename!r} overlaps another, is encrypted or is cut"
            )
        # 30 bytes of a local header at least; its name and extra field come on top
        at = info.header_offset + 30 + info.compress_size
    return members


def _refuse_other_zips(
    path: Path, data: mmap.mmap, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> None:
    """TorchScript, .pt2, .npz and whatever else is no torch.save archive:
    what is dangerous comes first.
    """
    # what claims to be large and is packed is not even opened for a look
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > 1 << 26:
            raise IntegrityError(
                f"{path}: member {info.filename!r} is compressed and claims {info.file_size:,}"
                " bytes"
            )
        _scan_member(path, archive, info)
    names = ["/" + name for name in members]
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise UnsafeFileError(
            f"refused: {path} is a TorchScript archive: it holds code, not only tensors"
        )
    if any(name.endswith(("/archive_format", "/models/model.json")) for name in names):
        raise UnsafeFileError(
            f"refused: {path} is an exported program (.pt2): it holds code, not only tensors"
        )
    if all(name.endswith(".npy") for name in names):
        _wrong_kind(path, "a NumPy .npz archive")
    # exactly one: with two of them readers would disagree
    if sum(name.endswith("/data.pkl") for name in names) != 1:
        _wrong_kind(path, "a zip archive without a data.pkl")
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED:
            raise IntegrityError(
                f"{path}: member {info.filename!r} is compressed; torch.save never does that"
            )


def _scan_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Dry-run whatever may be a pickle.
    Storages (data/<key>) are numbers and are never interpreted by anybody.
    """
    folder, _, leaf = info.filename.rpartition("/")
    # (A pickle in there would be numbers to torch, as it is to us.)
    if folder.rpartition("/")[2] == "data" and leaf.isdigit():
        return
    with archive.open(info) as member:
        # as much of it as any pickle of a checkpoint needs
        content = member.read(min(info.file_size, filetype.HEAD * 256))
    label = f"{path.name}:{info.filename}"
    _danger_in(content, label)


def _zip_program(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> DryRun:
    pickle_name = next(name for name in members if ("/" + name).endswith("/data.pkl"))
    root = pickle_name.removesuffix("data.pkl")
    content = archive.read(pickle_name)
    program = dry_run(BoundedReader(content, 0, len(content), path.name), path.name)
    # absent in older files, which were written on little-endian machines alone
    if members.get(root + "byteorder") and archive.read(root + "byteorder") != b"little":
        raise IntegrityError(f"{path}: was not written on a little-endian machine")
    for key, spec in program.storages.items():
        info = members.get(f"{root}data/{key}")
        # digits only: `_scan_member` has passed such members over as numbers
        if info is None or info.file_size != spec.nbytes or not key.isdigit():
            there = info.file_size if info else 0
            raise IntegrityError(
                f"{path}: claims a storage {key} of {spec.nbytes:,} bytes, the archive holds"
                f" {there:,} for it"
            )
    _no_strangers(path, members, root, program)
    return program


def _no_strangers(
    path: Path, members: dict[str, zipfile.ZipInfo], root: str, program: DryRun
) -> None:
    expected = {f"{root}data/{key}" for key in program.storages} | {
        root + name for name in _TORCH_SMALL
    }
    # A member that nobody reads can still be read by another program than torch.
    strange = set(members) - expected - {root + "data.pkl"}
    if strange:
        raise IntegrityError(
            f"{path}: holds {len(strange)} members that torch.save does not write"
            f" ({min(strange)!r})"
        )


# everything else: is there a pickle in it that would do something?


def _look_for_danger(path: Path, data: mmap.mmap, kind: str) -> None:
    if kind == filetype.TAR:
        for name, content in _tar_members(path):
            _danger_in(content, f"{path.name}:{name}")
    else:
        _danger_in(data, path.name)


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with (
        # a broken archive is refused for what it is; here only danger is looked for
        contextlib.suppress(tarfile.TarError, OSError, ValueError),
        tarfile.open(path, "r:") as archive,
    ):
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                return
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content.read(filetype.HEAD * 256)


def _danger_in(content: Any, label: str) -> None:
    """Raises UnsafeFileError for a pickle (bare,
    behind an .npy header, one after another) that names a global.
    """
    start = _npy_payload(content) if content[:6] == b"\x93NUMPY" else 0
    # archives in archives are how a look is evaded: none of ours has one
    if content[:4] == b"PK\x03\x04" and ":" in label:
        raise UnsafeFileError(f"refused: {label} is an archive inside an archive")
    if start is None:
        return
    window = BoundedReader(content, start, len(content), label)
    try:
        # one after the other: a harmless pickle in front must not hide a second one
        while window.tell() < len(content):
            dry_run(window, label)
    except TooLongError:
        raise
    except IntegrityError:
        return  # no pickle, or a broken one: refused for what the file is


def _npy_payload(content: Any) -> int | None:
    """Where the pickle of an .npy file with objects starts; None where it holds plain numbers."""
    major = content[6]
    size = (
        struct.unpack_from("<H", content, 8)[0] + 10
        if major == 1
        else struct.unpack_from("<L", content, 8)[0] + 12
    )
    return size if b"'|O'" in content[:size] or b"'O'" in content[:size] else None


def state_dict_of(inspection: Inspection) -> dict[str, TensorSpec]:
    """The tensors of `state_dict` (or of the top level,
    where there is none) without `module.` prefixes.
    """
    inner = inspection.value.get("state_dict", inspection.value)
    items = inner.items if isinstance(inner, Ordered) else inner
    if type(items) is not dict:
        return {}
    tensors = {
        key: value
        for key, value in items.items()
        if isinstance(value, TensorSpec) and type(key) is str
    }
    return {key.removeprefix("module."): value for key, value in tensors.items()}
