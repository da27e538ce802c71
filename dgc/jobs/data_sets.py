"""`python -m dgc.jobs.data_sets verify|describe|download NAME`: the process that `dgcctl data`
starts.

With `--json FILE` the answer goes into FILE, and bad files are part of the answer (exit code 0).
Without it they are printed and the exit code is 3. An error is one line `error: ...` on stderr.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dgc.data import cifar
from dgc.data.sets import NAMES, data_dir, open_images
from dgc.data.verify import verify, write_quarantine
from dgc.errors import DataError, DgcError, ExitCode, UsageError, system_error
from dgc.talk import put, run_program, say_error, shown

SCHEMA_VERSION = 1


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    found = verify(options.name, options.data_dir, full=options.full)
    if options.write_quarantine:
        write_quarantine(options.write_quarantine, found["bad"])
    return found


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    images = open_images(
        name=options.name,
        dir=options.data_dir,
        download=False,
        quarantine=options.quarantine,
        # no images are made here: only counts and digests are asked for
        image_size=32,
    )
    return images.describe()


def _download(options: argparse.Namespace) -> dict[str, Any]:
    if options.name not in ("cifar10", "cifar100"):
        raise UsageError(f"{options.name} cannot be downloaded: only cifar10 and cifar100 can")
    # repair: who asks for a download has damaged files replaced, too
    cifar.ensure(
        cifar.source(options.name),
        data_dir(options.name, options.data_dir),
        download=True,
        repair=True,
    )
    # read as a training would: a download that cannot be used is told at once
    return verify(options.name, options.data_dir)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.data_sets", description=__doc__)
    parser.add_argument("action", choices=sorted(_ACTIONS))
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--data-dir", type=Path, help="default: $DGCCTL_DATA_DIR/NAME or ./data/NAME"
    )
    parser.add_argument(
        "--full", action="store_true", help="verify: digest of every byte, however many there are"
    )
    parser.add_argument("--quarantine", type=Path, help="describe: a list of files to leave out")
    parser.add_argument(
        "--write-quarantine", type=Path, help="verify: write the bad files to this list"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answer to FILE")
    return parser


_ACTIONS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "verify": _verify,
    "describe": _describe,
    "download": _download,
}


def _answer(found: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.write_text(
            json.dumps({"schema_version": SCHEMA_VERSION, **found}, indent=2) + "\n", "utf-8"
        )
        return
    structure = found.pop("structure", [])
    bad = [*structure, *found.pop("bad", [])]
    put(json.dumps(found, indent=2))
    for item in bad:
        put(shown(f"{item['file']}: {item['reason']}"))
    if bad:
        raise DataError(
            f"{found['dir']}: {len(bad)} of its files{' and folders' * bool(structure)} cannot be"
            " used"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one action; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _answer(_ACTIONS[options.action](options), options.json)
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    except OSError as error:
        refused = system_error(error)
        say_error(refused)
        return int(refused.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return 0


if __name__ == "__main__":
    run_program(main)
