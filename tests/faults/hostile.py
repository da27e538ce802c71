"""Files that mean harm: what each would execute, and the containers it can hide in. Nothing here
runs any of it.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
SYSTEM = pickle.dumps(
    {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    },
    2,
)
EMPTY_LIST = b"\x80\x02]."


def calls(module: str, name: str, *arguments: object) -> bytes:
    """Protocol 2: GLOBAL, arguments, REDUCE."""
    body = pickle.dumps(arguments, 2)[2:-1]
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + body + b"R."


def stack_global(module: str, name: str) -> bytes:
    """Protocol 4: both names through the memo, so that no text `c<module>` stands in the file."""
    text = b"".join(
        b"\x8c" + bytes([len(part)]) + part.encode() + b"\x94" for part in (module, name)
    )
    return b"\x80\x04" + text + b"00h\x00h\x01\x93)R."


def payloads(canary: str) -> dict[str, tuple[bytes, str]]:
    """name -> (pickle, the global that must be named)."""
    touch = f"touch {canary}"
    python = f"open({canary!r}, 'w')"
    inner = calls("posix", "system", touch)
    return {
        "os.system": (calls("posix", "system", touch), "posix.system"),
        "os.system by its public name": (calls("os", "system", touch), "os.system"),
        "builtins.eval": (calls("builtins", "eval", python), "builtins.eval"),
        "builtins.exec of Python 2": (calls("__builtin__", "exec", python), "__builtin__.exec"),
        "builtins.open": (calls("builtins", "open", canary, "w"), "builtins.open"),
        "subprocess": (calls("subprocess", "Popen", ["touch", canary]), "subprocess.Popen"),
        "getattr": (calls("builtins", "getattr", "a", "__class__"), "builtins.getattr"),
        "import": (calls("importlib", "import_module", "antigravity"), "importlib.import_module"),
        "nested pickle": (calls("pickle", "loads", inner), "pickle.loads"),
        "torch nested pickle": (
            calls("torch.storage", "_load_from_bytes", inner),
            "torch.storage._load_from_bytes",
        ),
        "torch.hub": (calls("torch.hub", "load", canary, "x"), "torch.hub.load"),
        "torch.load": (calls("torch", "load", canary), "torch.load"),
        "torch native library": (
            calls("torch._ops", "load_library", canary),
            "torch._ops.load_library",
        ),
        "torch module": (
            calls("torch.nn.modules.linear", "Linear", 1, 1),
            "torch.nn.modules.linear.Linear",
        ),
        "numpy": (
            calls("numpy.core.multiarray", "_reconstruct", 0),
            "numpy.core.multiarray._reconstruct",
        ),
        "attribute of an allowed name": (
            calls("collections", "OrderedDict.__reduce__.__globals__"),
            "collections.OrderedDict.__reduce__.__globals__",
        ),
        "STACK_GLOBAL through the memo": (stack_global("posix", "system"), "posix.system"),
        "INST": (b"(S'" + touch.encode() + b"'\niposix\nsystem\n.", "posix.system"),
        "OBJ": (b"\x80\x02(cposix\nsystem\nX\x01\x00\x00\x00ao.", "posix.system"),
        "NEWOBJ": (b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00a\x85\x81.", "posix.system"),
        "extension registry": (b"\x80\x02\x82\x07)R.", "number 7 of the extension registry"),
    }


Container = Callable[[bytes], bytes]


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def npy_of(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    return buffer.getvalue() + payload


def in_a_string(payload: bytes) -> bytes:
    """A good-looking checkpoint with a pickle among its texts."""
    framed = payload if payload[:1] == b"\x80" else b"\x80\x02" + payload
    return pickle.dumps({"state_dict": {}, "note": framed}, 4)


def torch_zip(data: bytes, **more: bytes) -> bytes:
    return zip_of(
        {
            "archive/data.pkl": data,
            "archive/version": b"3\n",
            "archive/byteorder": b"little",
            **more,
        }
    )


PLAIN = b"\x80\x02}."
CONTAINERS: dict[str, tuple[str, Container]] = {
    "bare pickle": ("x.pkl", lambda p: p),
    "bare pickle named .safetensors": ("x.safetensors", lambda p: p),
    "bare pickle named .png": ("x.png", lambda p: p),
    "torch zip": ("x.pt", torch_zip),
    "torch zip, compressed": (
        "x.pt",
        lambda p: zip_of({"a/data.pkl": p, "a/version": b"3\n"}, zipfile.ZIP_DEFLATED),
    ),
    "torch zip, in a second pickle": (
        "x.pt",
        lambda p: torch_zip(PLAIN, **{"archive/more.pkl": p}),
    ),
    "torch legacy": ("x.tar", lambda p: MAGIC + VERSION + SYSTEM + p + EMPTY_LIST),
    "torch legacy, in its first dict": (
        "x.tar",
        lambda p: MAGIC + VERSION + p + PLAIN + EMPTY_LIST,
    ),
    "torch legacy, in its last list": ("x.tar", lambda p: MAGIC + VERSION + SYSTEM + PLAIN + p),
    "TorchScript": (
        "x.pt",
        lambda p: zip_of({"m/constants.pkl": p, "m/code/a.py": b"", "m/data.pkl": PLAIN}),
    ),
    ".pt2": ("x.pt2", lambda p: zip_of({"m/archive_format": b"pt2", "m/data/weights/a.pt": p})),
    "real tar": ("x.tar", lambda p: tar_of({"readme": b"hello", "pickle": p})),
    "npz": ("x.npz", lambda p: zip_of({"a.npy": npy_of(p)})),
    "npy": ("x.npy", npy_of),
    "in a string": ("x.pkl", in_a_string),
}


def files(canary: str) -> Iterator[tuple[str, str, bytes, str]]:
    """(what it is, file name, content, global that must be named) for every payload in every
    container.
    """
    for payload, (content, needed) in payloads(canary).items():
        for container, (name, wrap) in CONTAINERS.items():
            yield f"{payload} in a {container}", name, wrap(content), needed


# --- headers that lie -----------------------------------------------------------------------------


def tensor(
    key: str, numel: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
) -> bytes:
    """Protocol 2 instructions that push one tensor (a _rebuild_tensor_v2 call on a storage)."""
    storage = (
        b"("
        + _text("storage")
        + b"ctorch\nFloatStorage\n"
        + _text(key)
        + _text("cpu")
        + _int(numel)
        + b"NtQ"
    )
    size = b"(" + b"".join(map(_int, shape)) + b"t"
    step = b"(" + b"".join(map(_int, stride)) + b"t"
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + _int(offset)
        + size
        + step
        + hooks
        + b"tR"
    )


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _int(number: int) -> bytes:
    return pickle.dumps(number, 2)[2:-1]


def legacy(keys: list[str], entries: bytes, blocks: bytes) -> bytes:
    """A pre-1.6 file: a dict of the given (key, tensor) instructions, then the storages."""
    return (
        MAGIC + VERSION + SYSTEM + b"\x80\x02}(" + entries + b"u." + pickle.dumps(keys, 2) + blocks
    )


def entry(name: str, value: bytes) -> bytes:
    return _text(name) + value


def block(numel: int, content: bytes) -> bytes:
    return struct.pack("<q", numel) + content
