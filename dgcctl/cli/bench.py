"""`dgcctl bench`: the side-by-side inference benchmark, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dgc.errors import DgcError
from dgcctl.cli import diagnostics, output


class BenchFailedError(DgcError):
    """The measuring process ended with an error; it has said why on stderr."""


def bench(
    network: Annotated[
        list[str] | None, typer.Option("--network", help="condensenet, resnet18 or densenet86; all by default.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch sizes; 1 and 32 by default.")] = None,
    threads: Annotated[list[int] | None, typer.Option("--threads", min=1, help="Threads; 1 and 2 by default.")] = None,
    budget: Annotated[float, typer.Option("--budget", help="Seconds of timing for each row of the table.")] = 60.0,
    layers: Annotated[bool, typer.Option("--layers", help="Each convolution of the native plan instead.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="JSON file, by default one named after this machine; table and plots lie beside it."
        ),
    ] = None,
) -> None:
    """Time the project against dense networks in other engines, side by side. Leave the machine idle meanwhile.

    Prints the table; `pip install 'dgcctl[bench]'` adds ONNX Runtime and OpenVINO to it.
    """
    arguments = [f"--budget={budget}", *([f"--out={out}"] if out else []), *(["--layers"] if layers else [])]
    arguments += [f"--network={n}" for n in network or []]
    arguments += [f"--batch={b}" for b in batch or []] + [f"--threads={t}" for t in threads or []]
    diagnostics.note("measuring; a row is told when it is there")
    done = subprocess.run(
        [sys.executable, "-m", "dgc.bench", *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise BenchFailedError(f"python -m dgc.bench {' '.join(arguments)} failed; its own message stands above")
    output.write(done.stdout)
