"""Starts trainings by fork from a process that has imported torch once: a kill a second instead of
one in six.

Reads one JSON object a line, {"argv", "env", "errors"}, forks, and answers {"pid"}; when that child
has ended, it answers {"pid", "code"} (negative: the signal). One child at a time is waited for; the
test may kill it meanwhile.
"""

import json
import os
import pathlib
import resource
import sys
import time
import traceback
import types


def main() -> None:
    import dgc.train.main  # noqa: F401 - the point of this process
    from dgc.run import provenance
    from dgc.run.files import crash_point
    from dgc.train.__main__ import main as train

    digest = provenance.code_digest()
    # the code that was imported, even if files have changed since
    provenance.code_digest = lambda: digest
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(order, crash_point, train))
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


def child(order, crash_point, train) -> int:
    os.setsid()
    errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(errors, descriptor)
    os.environ.update(order["env"])
    crash_point.__init__(order["env"].get("DGCCTL_CRASH_AT", ""))
    disturb(order["env"])
    sys.argv = ["dgc.train", *order["argv"]]
    try:
        return int(train(order["argv"]))
    except BaseException:  # noqa: BLE001 - a child that unwound into our loop would serve orders too
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


def disturb(env) -> None:
    """SIGNAL_INSTEAD: what a crash point does instead of SIGKILL (a signal's number, or `hang`).
    FREE_BYTES: a lie. MORE_MEMORY: so many bytes on top of what is mapped, and then no more.
    """
    import dgc.run.files
    from dgc.train import save

    if "FREE_BYTES" in env:
        save.free_bytes = lambda path: int(env["FREE_BYTES"])
    if "MORE_MEMORY" in env:
        mapped = (
            int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        )
        resource.setrlimit(resource.RLIMIT_AS, (mapped + int(env["MORE_MEMORY"]),) * 2)
    if instead := env.get("SIGNAL_INSTEAD"):
        stand_in = types.SimpleNamespace(SIGKILL=instead)
        kill = os.kill
        dgc.run.files.signal = stand_in
        dgc.run.files.os = types.SimpleNamespace(
            **{**vars(os), "kill": lambda pid, what: act(kill, pid, what)}
        )


def act(kill, pid: int, what) -> None:
    if what == "hang":
        print("hanging", flush=True)
        while True:
            time.sleep(0.01)
    kill(pid, int(what))


if __name__ == "__main__":
    main()
