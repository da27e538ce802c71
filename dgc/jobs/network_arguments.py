"""How a program is told which network it is about; dgc.hub.load_weights.open_named opens it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_network(parser: argparse.ArgumentParser) -> None:
    """--pretrained NAME, --run-dir RUN (with --step, --ema) or --weights FILE (with --recipe)."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pretrained")
    source.add_argument("--run-dir", type=Path)
    source.add_argument("--weights", type=Path)
    parser.add_argument("--recipe", help="network and data of --weights")
    parser.add_argument(
        "--step", default="last", help="checkpoint of --run-dir: a step, best or last"
    )
    parser.add_argument("--ema", action="store_true", help="averaged weights of --run-dir")
