"""`dgcctl bench`: the side-by-side inference benchmark, as a process of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dgc.errors import DgcError, UsageError
from dgcctl.cli._ui import diagnostics, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.precision import Precision
from dgcctl.cli._ui.targets import check_target


class Network(StrEnum):
    """What can be measured (`dgc.bench.networks`, which would load PyTorch)."""

    CONDENSENET = "condensenet"
    RESNET18 = "resnet18"
    DENSENET86 = "densenet86"


class BenchFailedError(DgcError):
    """The measuring process was killed, so that it could not say why itself."""


PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", metavar="FILE", help="A plan file instead: load, first image, the rest."
    ),
]
Train = Annotated[
    bool,
    typer.Option(
        "--train", help="Training instead: a step against every way to train the dense twin."
    ),
]
Layers = Annotated[
    bool, typer.Option("--layers", help="Each convolution of the native plan instead.")
]
InPrecision = Annotated[
    Precision, typer.Option("--precision", help="int8: against dense engines in any precision.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "--network",
        metavar="NAME",
        help="condensenet, resnet18, densenet86 (these by default), torchvision/NAME or timm/NAME.",
    ),
]
GateFactors = Annotated[
    list[float] | None,
    typer.Option(
        "--gate-factor",
        min=0,
        max=1,
        help="Of a network of torchvision or timm when it is converted; 0.25 and 0.5 by default.",
    ),
]
Batches = Annotated[
    list[int] | None,
    typer.Option(
        "--batch", min=1, help="Batch sizes; 1 and 32 by default, 1 for other libraries' networks."
    ),
]
Threads = Annotated[
    list[int] | None, typer.Option("--threads", min=1, help="Threads; 1 and 2 by default.")
]
Budget = Annotated[
    float, typer.Option("--budget", help="Seconds of timing for each row of the table.")
]
Progress = Annotated[
    list[float] | None,
    typer.Option(
        "--progress", min=0, max=1, help="With --train, of the schedule; 0, 0.5 and 0.9 by default."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="JSON file to add the rows to; table and plots are put beside it."),
]


@tabular
def bench(
    network: Models = None,
    gate_factor: GateFactors = None,
    batch: Batches = None,
    threads: Threads = None,
    precision: InPrecision = Precision.FLOAT32,
    budget: Budget = 60.0,
    layers: Layers = False,
    train: Train = False,
    progress: Progress = None,
    plan: PlanFile = None,
    out: Out = None,
    *,
    form: output.Form,
) -> None:
    """Time the project against dense networks in other engines, side by side. Leave the machine
    idle meanwhile.

    Prints the table, and keeps it where --out says; `pip install 'dgcctl[bench]'` adds ONNX Runtime
    and OpenVINO to it.
    """
    # nan is in any range to Python, and inf would time without end
    if not 0 < budget < math.inf:
        raise UsageError(f"--budget {budget:g}: should be a number of seconds above 0, e.g. 60")
    foreign = _foreign(network or [])
    if foreign and (train or plan or precision is not Precision.FLOAT32):
        raise UsageError("--model of another library: leave out --train, --plan and --precision")
    if gate_factor and not foreign:
        raise UsageError("--gate-factor is for --model torchvision/NAME or timm/NAME")
    if precision is not Precision.FLOAT32 and (train or layers or plan):
        raise UsageError(f"--precision {precision}: leave out --train, --layers and --plan")
    if plan is not None:
        _alone(network, layers, train, out)
        _measure_plan(plan, batch or [1], threads or [1], budget, form)
        return
    if form is not output.Form.TEXT:
        raise UsageError(
            f"--{form} goes with --plan; else --out FILE keeps the rows as JSON, a table beside it"
        )
    if train and (batch or layers):
        raise UsageError(
            "--train has its own batch sizes and no table of layers: leave out --batch and --layers"
        )
    if progress and not train:
        raise UsageError("--progress belongs to --train")
    check_target("--out", out)
    module, name = _program(train=train, foreign=foreign)
    arguments = [] if train else [f"--budget={budget}"]
    arguments += [] if train or foreign else [f"--precision={precision}"]
    arguments += [f"--gate-factor={g}" for g in gate_factor or []]
    arguments += ["--layers"] if layers else []
    arguments += [f"--progress={p}" for p in progress or []]
    arguments += [f"--network={n}" for n in network or []]
    arguments += [f"--batch={b}" for b in batch or []] + [f"--threads={t}" for t in threads or []]
    _measure(module, arguments, out, name)


def _foreign(names: list[str]) -> bool:
    """Whether networks of other libraries are meant. Raises UsageError for a name that is none."""
    known = [n.value for n in Network]
    others = [n for n in names if n.startswith(("torchvision/", "timm/"))]
    for name in names:
        if name not in known and name not in others:
            raise UsageError(
                f"--model {name!r}: there are {', '.join(map(repr, known))}, torchvision/NAME and"
                " timm/NAME"
            )
    if others and len(others) < len(names):
        raise UsageError(
            "--model: networks of other libraries have a table of their own: ask twice"
        )
    return bool(others)


def _program(*, train: bool, foreign: bool) -> tuple[str, str]:
    """What measures, and how its file is called."""
    if train:
        return "dgc.bench.training", "training.json"
    return (
        ("dgc.bench.foreign_report", "foreign.json") if foreign else ("dgc.bench", "inference.json")
    )


def _alone(*others: object) -> None:
    if any(others):
        raise UsageError(
            "--plan measures a file by itself: leave out --network, --layers, --train and --out"
        )


def _measure_plan(
    file: Path, batches: list[int], threads: list[int], budget: float, form: output.Form
) -> None:
    """In a process of its own, without PyTorch, so that its memory is the plan's."""
    words = [f"--batch={b}" for b in batches] + [f"--threads={t}" for t in threads]
    # By subprocess alone, as `dgc.runtime` needs no more than NumPy.
    module = "dgc.runtime.bench"
    command = [sys.executable, "-m", module, str(file.absolute()), *words, f"--seconds={budget}"]
    found = json.loads(_output_of(command, module))
    columns = [
        TableColumn("threads", right=True),
        TableColumn("batch", right=True),
        TableColumn("median", "ms/image", _ms, right=True),
        TableColumn("low", "quartiles", _ms, right=True),
        TableColumn("high", "", _ms, right=True),
        TableColumn("n", right=True),
    ]
    facts = {key: value for key, value in found.items() if key not in ("rows", "schema_version")}
    output.table("rows", columns, found["rows"], form, **facts)
    if form is not output.Form.TEXT:
        return
    memory = found["resident_mb"]
    output.line(
        f"loaded in {found['load_ms']:.1f} ms, first image {found['first_ms']:.1f} ms"
        + (f", {memory:.0f} MB in memory" if memory else "")
    )


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _measure(module: str, arguments: list[str], out: Path | None, name: str) -> None:
    """Run the program that measures, which tells each row on stderr; its table goes to stdout."""
    diagnostics.note("measuring; a row is told when it is there")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, *arguments, f"--out={out or Path(folder) / name}"]
        output.write(_output_of(command, module))


def _output_of(command: list[str], module: str) -> str:
    """What a program that measures prints; it says itself why it fails."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode < 0:
        raise BenchFailedError(f"python -m {module} was killed by signal {-done.returncode}")
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout
