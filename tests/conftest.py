"""What every test may rely on, whoever runs the suite and wherever: environment, signals, threads
and file modes.

It runs before any test module, so before torch is loaded. And a test is skipped only by name:
`tests/skips.txt`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import skips

# one thread a process: several workers then share the cores without fighting, and sums have one
# order everywhere; a test about threads names their number. Waiting threads sleep at once instead
# of spinning on a core others need.
THREADS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}
# of the one who runs the suite, and none of its business: how their terminal looks, where their
# runs and data are, which repository they stand in, which job or group of ranks they are part of
_OTHERS = ("DGCCTL_", "GIT_", "SLURM_", "TORCHELASTIC_", "XDG_", "TEXTUAL", "TMUX")
_OTHERS_BY_NAME = (
    *(
        "NO_COLOR",
        "FORCE_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "COLORTERM",
        "COLUMNS",
        "LINES",
        "LANGUAGE",
    ),
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *(
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "SEED",
        "ISA",
        "WORKERS",
        "PYTHONWARNINGS",
        "PYTHONHASHSEED",
        "CDPATH",
        "EDITOR",
        "PAGER",
        "CI",
    ),
    *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)
_KEPT = "DGCCTL_FAULT_TABLE"
_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)


def settle_environment(environ: os._Environ[str] | dict[str, str]) -> None:
    """The environment of every test and of each process that it starts."""
    for name in list(environ):
        if name != _KEPT and (name.startswith(_OTHERS) or name in _OTHERS_BY_NAME):
            del environ[name]
    environ.update(THREADS)
    environ.update(
        {
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
    )


def settle_signals() -> None:
    """Where a script starts us in its background, or nohup does, SIGINT or SIGHUP is ignored, and
    every child would inherit that: our tests of Ctrl-C would wait in vain. With a handler of ours
    we go on ignoring it, and a started program begins with the default.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def settle_home(environ: os._Environ[str] | dict[str, str]) -> None:
    """A home of our own, empty: theirs may be missing, read-only, or full of settings. matplotlib's
    list of fonts takes seconds to make, so it is kept between sessions.
    """
    home = Path(tempfile.mkdtemp(prefix="dgcctl-tests-home-"))
    atexit.register(_remove, home, os.getpid())
    environ["HOME"] = str(home)
    fonts = Path(__file__).resolve().parents[1] / ".pytest_cache" / "matplotlib"
    environ["MPLCONFIGDIR"] = str(fonts)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked child
        shutil.rmtree(folder, ignore_errors=True)


settle_environment(os.environ)
settle_signals()
settle_home(os.environ)
os.umask(0o022)
_HANDLERS = {number: signal.getsignal(number) for number in _SIGNALS}


def _put_handlers_back() -> None:
    for number, handler in _HANDLERS.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _everything_is_put_back() -> Iterator[None]:
    """What a command sets for its whole process (flags become variables of the environment) ends
    with its test: else the next test would begin with it, in one order of tests and not in another.
    """
    environ, folder, umask = dict(os.environ), Path.cwd(), os.umask(0o022)
    # a training in a fixture of a module leaves signals ignored, as at a program's end
    _put_handlers_back()
    yield
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    os.umask(umask)
    _put_handlers_back()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip without a line in tests/skips.txt fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = (
            report.longrepr[2].removeprefix("Skipped: ")
            if isinstance(report.longrepr, tuple)
            else ""
        )
        if not skips.listed(item.nodeid, reason):
            report.outcome = "failed"
            report.longrepr = (
                f"skipped ({reason}), but tests/skips.txt has no line for {item.nodeid} with that"
                " reason"
            )
    return report


def pytest_configure(config: pytest.Config) -> None:
    """An instruction set that this machine lacks (`make test ISA=avx512`) ends the suite with one
    line, not with an error a test. The import is here, so that the environment is settled before
    it.
    """
    from dgc.errors import UsageError
    from dgc.kernels.cpu import isa, library

    if isa.VARIABLE not in os.environ:
        return
    try:
        library.load()
    except UsageError as error:
        pytest.exit(f"error: {error}", returncode=2)
