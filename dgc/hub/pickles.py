"""What a pickle would do, without doing it. No torch, nothing is imported, nothing is called.

A pickle is a program for a small stack machine. `Machine` runs it over symbols: a global is a name,
a call of one of the few allowed rebuild functions becomes a `TensorSpec`, a persistent id becomes a
`StorageSpec`. Whatever is not on the list is refused with its name and offset, before any real
unpickler sees a byte.

The list is what a checkpoint of tensors, numbers, strings and dicts needs (protocol 2, as
torch.save writes it). The number of instructions, the depth of pickles in pickles and (in
`pickle_parts`) the length of each literal are bounded, so that a hostile pickle costs little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgc.errors import IntegrityError, UnsafeFileError
from dgc.hub.pickle_parts import (
    STORAGES,
    BoundedReader,
    Global,
    Ordered,
    Reader,
    StorageSpec,
    TensorSpec,
    opcodes,
)

MAX_OPCODES = 200_000  # the largest released file needs 32,000, twice that with an optimizer
MAX_DEPTH = 3

ALLOWED = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        *(f"torch.{name}" for name in STORAGES),
    }
)


class TooLongError(IntegrityError):
    """A pickle of more instructions than any checkpoint of ours needs."""


@dataclass
class DryRun:
    """What a pickle came to: its value, its storages, and where it ended."""

    value: Any
    storages: dict[str, StorageSpec]
    end: int


def dry_run(reader: Reader, label: str, depth: int = 0) -> DryRun:
    """Run one pickle over symbols, from the reader's position to its STOP.

    Raises UnsafeFileError (global and offset named) or IntegrityError (broken, or not a
    checkpoint).
    """
    machine = Machine(label, depth)
    try:
        # bounded by count: a large file of tiny instructions would keep us for hours
        for count, (opcode, arg, position) in enumerate(opcodes(reader)):
            if count >= MAX_OPCODES:
                raise TooLongError(
                    f"{label}: more than {MAX_OPCODES:,} pickle instructions; not a checkpoint"
                )
            machine.step(opcode, arg, position)
    # a hostile pickle may pop what is not there: the machine's own errors are the pickle's fault
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise IntegrityError(
            f"{label}: broken pickle at offset {machine.position} ({type(error).__name__})"
        ) from error
    # pickletools' words for a pickle that is cut or is none
    except (ValueError, UnicodeError) as error:
        raise IntegrityError(
            f"{label}: broken or cut pickle after offset {machine.position} ({str(error)[:80]})"
        ) from error
    return DryRun(machine.result, machine.storages, reader.tell())


class Machine:
    """The stack machine. One method an instruction family;
    an instruction that is not here is refused.
    """

    def __init__(self, label: str, depth: int = 0) -> None:
        self.label = label
        self.depth = depth
        self.position = 0
        self.result: Any = None
        self.storages: dict[str, StorageSpec] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, arg: Any, position: int) -> None:
        self.position = position
        # literals are looked into as well: see _look_inside
        if opcode in _LITERALS:
            self._literal(arg)
            return
        action = _ACTIONS.get(opcode)
        # What is not known is refused, and not skipped: an instruction of a later protocol could
        # do anything.
        if action is None:
            raise IntegrityError(
                f"{self.label}: uses the pickle instruction {opcode} at offset {position}"
            )
        action(self, arg)

    # values and stack

    def _literal(self, value: Any) -> None:
        if isinstance(value, bytes | bytearray | str):
            self._look_inside(
                value.encode("latin-1", "replace") if isinstance(value, str) else bytes(value)
            )
        self._stack.append(value)

    def _look_inside(self, data: bytes) -> None:
        """A pickle hidden in a string is no danger by itself,
        but nobody hides one with good intent.
        """
        # How a pickle of protocol 2 to 5 begins and ends; older ones have no mark, and look like
        # any text.
        if len(data) <= 4 or data[0] != 0x80 or data[1] > 5 or data[-1:] != b".":
            return
        if self.depth == MAX_DEPTH:
            raise UnsafeFileError(
                f"refused: {self.label} hides pickles in pickles at offset {self.position}"
            )
        with contextlib.suppress(IntegrityError):  # it only looked like one
            dry_run(
                BoundedReader(data, 0, len(data), self.label),
                f"{self.label} (pickle in a string)",
                self.depth + 1,
            )

    def _mark(self, _: Any) -> None:
        # a mark opens a stack of its own; what stood before it waits in _marks
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _collect(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._pop_mark()
        self._stack.append(make(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        # type, not isinstance, here and below: of the values that the machine itself makes
        if type(self._stack[-1]) is not list:
            raise TypeError
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        into = target.items if isinstance(target, Ordered) else target
        if type(into) is not dict:
            raise TypeError
        if len(items) % 2:
            raise IndexError
        # keys of a checkpoint are names or numbers; others would need code of theirs to compare
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise IntegrityError(
                    f"{self.label}: a dict key of type {type(key).__name__} at offset"
                    f" {self.position}"
                )
            into[key] = value

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items)

    def _put(self, index: Any) -> None:
        # MEMOIZE has no index: it counts by itself
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def _stop(self, _: Any) -> None:
        self.result = self._stack.pop()

    # names and calls

    def _refuse(self, name: str) -> None:
        raise UnsafeFileError(
            f"refused: {self.label} needs global {name} at offset {self.position}"
        )

    def _need(self, name: str) -> None:
        # no pickle at all, or one that no unpickler could follow
        if not name.replace(".", "_").isidentifier():
            raise IntegrityError(
                f"{self.label}: broken pickle at offset {self.position} (a name that is none)"
            )
        # A list of what is allowed, never one of what is not: there is always one more function
        # that runs something (https://docs.python.org/3/library/pickle.html#restricting-globals).
        if name not in ALLOWED:
            self._refuse(name)
        self._stack.append(Global(name))

    def _global(self, arg: Any) -> None:
        module, _, name = str(arg).partition(" ")
        self._need(f"{module}.{name}")

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._need(
            f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "computed"
        )

    def _inst(self, arg: Any) -> None:
        # INST calls what it names; checked first, so that the refusal says which name it was
        self._need(str(arg).replace(" ", ".", 1))
        raise UnsafeFileError(
            f"refused: {self.label} uses the pickle instruction INST at offset {self.position}"
        )

    def _extension(self, arg: Any) -> None:
        self._refuse(f"number {arg} of the extension registry")

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            # a call of what is no name, or with no tuple of
            # arguments, is nothing that torch.save writes
            raise TypeError
        if function.name == "collections.OrderedDict":
            self._stack.append(self._ordered(arguments))
        elif function.name.startswith("torch._utils._rebuild_"):
            self._stack.append(self._rebuild(function.name, arguments))
        else:
            raise IntegrityError(
                f"{self.label}: calls {function.name} at offset {self.position}; not a checkpoint"
            )

    def _ordered(self, arguments: tuple[Any, ...]) -> Ordered:
        """OrderedDict() or, as Python 2 wrote it, OrderedDict([[key, value], ...])."""
        made = Ordered()
        pairs = arguments[0] if arguments else []
        self._stack.append(made)
        for key, value in pairs:
            self._set_items([key, value])
        self._stack.pop()
        return made

    def _rebuild(self, name: str, arguments: tuple[Any, ...]) -> TensorSpec:
        # a parameter is its tensor: whether it is trained is not kept
        if name.endswith("_parameter"):
            if not isinstance(arguments[0], TensorSpec):
                raise TypeError
            return arguments[0]
        storage, offset, shape, stride = arguments[:4]
        # numbers that later products are made of: a float or a bool among them is refused
        numbers = (offset, *shape, *stride)
        if not isinstance(storage, StorageSpec) or any(type(n) is not int for n in numbers):
            raise TypeError
        return self._checked(TensorSpec(storage, offset, tuple(shape), tuple(stride)))

    def _checked(self, tensor: TensorSpec) -> TensorSpec:
        """Every element lies inside the storage,
        and no two share a place (a 1-element storage is no 1 TB tensor).
        """
        numbers = (tensor.offset, *tensor.shape, *tensor.stride)
        if len(tensor.shape) != len(tensor.stride) or min(numbers) < 0 or len(tensor.shape) > 8:
            raise IntegrityError(
                f"{self.label}: impossible shape {list(tensor.shape)} at offset {self.position}"
            )
        # The furthest element by its strides, counted before anything is allocated: a shape may
        # claim a terabyte in a header of forty bytes.
        last = tensor.offset + sum(
            (size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True)
        )
        if tensor.numel and (last >= tensor.storage.numel or tensor.numel > tensor.storage.numel):
            raise IntegrityError(
                f"{self.label}: claims a tensor of shape {list(tensor.shape)} ({tensor.nbytes:,}"
                f" bytes) at offset {self.position} in a storage of {tensor.storage.nbytes:,} bytes"
            )
        return tensor

    def _build(self, _: Any) -> None:
        """Attributes of an OrderedDict (`_metadata`):
        looked at by the machine already, not kept.
        """
        # BUILD calls __setstate__ where a class has one. OrderedDict has none, and nothing else
        # can be a target here.
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Ordered) or not isinstance(state, dict | Ordered):
            raise TypeError

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._storage(self._stack.pop()))

    def _storage(self, pid: Any) -> StorageSpec:
        if (
            type(pid) is not tuple
            or len(pid) < 5
            or pid[0] != "storage"
            or not isinstance(pid[1], Global)
        ):
            raise IntegrityError(
                f"{self.label}: a persistent id that is no storage at offset {self.position}"
            )
        kind, key, numel = pid[1].name.removeprefix("torch."), pid[2], pid[4]
        if kind not in STORAGES or type(key) is not str or type(numel) is not int or numel < 0:
            raise IntegrityError(f"{self.label}: an impossible storage at offset {self.position}")
        if len(pid) > 5 and pid[5] is not None:
            raise IntegrityError(
                f"{self.label}: a view of a storage at offset {self.position}; not supported"
            )
        spec = StorageSpec(key, *STORAGES[kind], numel)
        # Many tensors may lie in one storage; but two descriptions of it would make one of the
        # size checks meaningless.
        if self.storages.setdefault(key, spec) != spec:
            raise IntegrityError(f"{self.label}: storage {key!r} is described twice, differently")
        return spec


_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_LITERALS = frozenset((*_NUMBERS, *_BYTES, "BYTEARRAY8", *_TEXTS))
_ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "STOP": Machine._stop,
    "MARK": Machine._mark,
    "POP": lambda m, a: void(m._stack.pop()),
    "POP_MARK": lambda m, a: void(m._pop_mark()),
    "DUP": lambda m, a: m._stack.append(m._stack[-1]),
    "NONE": lambda m, a: m._stack.append(None),
    "NEWTRUE": lambda m, a: m._stack.append(True),
    "NEWFALSE": lambda m, a: m._stack.append(False),
    "EMPTY_TUPLE": lambda m, a: m._stack.append(()),
    "EMPTY_LIST": lambda m, a: m._stack.append([]),
    "EMPTY_DICT": lambda m, a: m._stack.append({}),
    "EMPTY_SET": lambda m, a: m._stack.append([]),
    "TUPLE": lambda m, a: m._collect(tuple),
    "LIST": lambda m, a: m._collect(list),
    "FROZENSET": lambda m, a: m._collect(tuple),
    "DICT": Machine._dict,
    "TUPLE1": lambda m, a: m._tuple_of(1),
    "TUPLE2": lambda m, a: m._tuple_of(2),
    "TUPLE3": lambda m, a: m._tuple_of(3),
    "APPEND": lambda m, a: m._append([m._stack.pop()]),
    "APPENDS": lambda m, a: m._append(m._pop_mark()),
    "ADDITEMS": lambda m, a: m._append(m._pop_mark()),
    "SETITEM": Machine._set_item,
    "SETITEMS": lambda m, a: m._set_items(m._pop_mark()),
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._put,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "INST": Machine._inst,
    "EXT1": Machine._extension,
    "EXT2": Machine._extension,
    "EXT4": Machine._extension,
    "REDUCE": Machine._call,
    "NEWOBJ": Machine._call,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}


def void(_: object) -> None:
    """Drop a value."""
