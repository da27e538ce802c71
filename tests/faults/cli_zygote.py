"""Starts command lines by fork from a process that has imported every command: a case in some
hundredths of a second.

Reads one JSON object a line, {"argv", "env", "cwd", "out", "err", "fault", ...}, and answers
{"code"} (negative: the signal). The fault is put in place in the child, before the command's first
line.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys

_CAPABILITIES_V3 = 0x20080522
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_READ_AND_WRITE_ALL = (1 << 1) | (1 << 2) | (1 << 3)


def main() -> None:
    from dgcctl.cli import main as program
    from dgcctl.cli import runs

    tables = [*program.COMMANDS.values(), *runs.COMMANDS.values()]
    for module in {target.partition(":")[0] for rows in tables for target, _ in rows.values()}:
        importlib.import_module(module)
    importlib.import_module("dgcctl.core.report.build")
    importlib.import_module("dgcctl.tui.once")
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def child(order) -> None:
    os.setsid()
    os.chdir(os.fsencode(order["cwd"].encode("utf-8", "surrogateescape")))
    os.environ.update(order["env"])
    for number, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    disturb(order)
    reopen(order["env"].get("PYTHONIOENCODING", "utf-8"))
    sys.argv = ["dgcctl", *order["argv"]]
    from dgcctl.boot import run

    try:
        interrupt_at_call(order.get("interrupt_at", 0))
        run()
    except SystemExit as end:
        code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    except BaseException:  # noqa: BLE001 - what the interpreter would show
        import traceback

        traceback.print_exc()
        os._exit(1)


def reopen(encoding: str) -> None:
    """Streams as the interpreter would make them at its start: None where the descriptor is closed."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(number)
            errors = "strict" if number == 1 else "backslashreplace"
            stream = open(number, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        except OSError:
            stream = None
        setattr(sys, name, stream)


def disturb(order) -> None:
    fault = order.get("fault", "")
    if fault in ("closed stdout", "closed stderr"):
        os.close(1 if fault == "closed stdout" else 2)
    if fault in ("stdout that nobody reads", "stderr that nobody reads"):
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1 if fault.startswith("stdout") else 2)
    if fault == "full standard output":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    if fault == "full disk":
        through_pipes()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    if order.get("ordinary_user") and os.geteuid() == 0:
        drop_rights()


def through_pipes() -> None:
    """Go on as a child whose words others write down: a limit of file sizes must not hide what is
    said.
    """
    pipes = [os.pipe() for _ in range(2)]
    worker = os.fork()
    if worker == 0:
        for number, (reader, writer) in zip((1, 2), pipes, strict=True):
            os.dup2(writer, number)
            os.close(reader)
            os.close(writer)
        return
    scribes = [
        write_down(number, reader, pipes) for number, (reader, _) in zip((1, 2), pipes, strict=True)
    ]
    for ends in pipes:
        os.close(ends[1])
    _, status = os.waitpid(worker, 0)
    for scribe in scribes:
        os.waitpid(scribe, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def write_down(number: int, reader: int, pipes) -> int:
    scribe = os.fork()
    if scribe == 0:
        for _, writer in pipes:
            os.close(writer)
        while data := os.read(reader, 1 << 16):
            os.write(number, data)
        os._exit(0)
    return scribe


def drop_rights() -> None:
    """Be root without root's right to read and write everything, so that rights of files count."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITIES_V3, 0)
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    words = list(struct.unpack("6I", data.raw))
    for at in range(3):  # effective, permitted, inheritable of the first 32
        words[at] &= ~_READ_AND_WRITE_ALL
    assert libc.capset(header, struct.pack("6I", *words)) == 0


def interrupt_at_call(number: int) -> None:
    """Ctrl-C at the so-manieth call of a Python function from now on: the same moment on every
    machine.
    """
    if not number:
        return
    left = number

    def count(frame, event, argument) -> None:
        nonlocal left
        if event == "call":
            left -= 1
            if left == 0:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(count)


if __name__ == "__main__":
    main()
