"""The page that a benchmark prints and may keep."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgc.bench.place import writable
from dgc.errors import UsageError
from dgc.run.files import atomic_write


def add_out(parser: argparse.ArgumentParser) -> None:
    """`--out FILE`, asked whether it can be written before anything is measured."""
    parser.add_argument("--out", type=_file, metavar="FILE", help="where the page is kept")


def _file(text: str) -> Path:
    try:
        return writable(Path(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tell(text: str, out: Path | None) -> None:
    sys.stdout.write(text)
    if out:
        atomic_write(out, text.encode())
