"""Every command of the command line, called so that it does its work on two small runs; and where
it is called.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dgc.recipe.load import dump_recipe, load_recipe
from tests.faults.training import ROOT, environment
from tests.unit.run_factory import make_run

FIRST, SECOND = "20260101T000000Z-demo-aaaaaa", "20260102T000000Z-demo-bbbbbb"
BYSTANDER = "20260103T000000Z-demo-cccccc"
TINY = (
    "train.max_steps=1",
    "data.limit_train=64",
    "data.limit_val=16",
    "train.batch_size=16",
    "train.epochs=1",
)

# Without a process of dgc: some hundredths of a second each.
QUICK: dict[str, tuple[str, ...]] = {
    "version": ("--version",),
    "help": ("--help",),
    "recipes ls": ("recipes", "ls"),
    "recipes show": ("recipes", "show", "demo"),
    "recipes show --why": ("recipes", "show", "demo", "--why"),
    "recipes validate": ("recipes", "validate", "demo", "my.yaml"),
    "recipes diff": ("recipes", "diff", "demo", "cifar10_h4"),
    "recipes cp": ("recipes", "cp", "demo", "copy.yaml"),
    "runs ls": ("runs", "ls"),
    "runs ls --json": ("runs", "ls", "--json"),
    "runs show": ("runs", "show", FIRST),
    "runs show --json": ("runs", "show", FIRST, "--json"),
    "runs tail": ("runs", "tail", FIRST),
    "runs tail --json": ("runs", "tail", FIRST, "--json"),
    "runs tail --log": ("runs", "tail", FIRST, "--log"),
    "runs stop": ("runs", "stop", FIRST),
    "runs compare": ("runs", "compare", FIRST, SECOND),
    "runs compare --where": ("runs", "compare", "--where", "name~demo"),
    "runs diff": ("runs", "diff", FIRST, SECOND, "--patch"),
    "runs verify --quick": ("runs", "verify", FIRST, "--quick"),
    "runs export FOLDER": ("runs", "export", FIRST, "exported"),
    "runs export ZIP": ("runs", "export", FIRST, "exported.zip"),
    "runs tag": ("runs", "tag", FIRST, "--add", "kept"),
    "runs note": ("runs", "note", FIRST, "a note"),
    "runs restore": ("runs", "restore"),
    "runs rm": ("runs", "rm", FIRST, "--yes"),
    "dash --once": ("dash", "--once", "--size", "80x24"),
    "dash": ("dash",),
    "report": ("report", FIRST, SECOND, "-o", "page.html"),
    "data ls": ("data", "ls"),
    "data download": ("data", "download", "cifar10"),
    "ckpt ls": ("ckpt", "ls"),
    "ckpt info": ("ckpt", "info", "cifar10_dydensenet86_h4"),
    "ckpt download": ("ckpt", "download", "cifar10_dydensenet86_h4"),
    "ckpt import": ("ckpt", "import", "my.yaml"),
    "ckpt verify": ("ckpt", "verify", "cifar10_dydensenet86_h4"),
    "ckpt export": ("ckpt", "export", FIRST, "weights.safetensors"),
    "sweep ls": ("sweep", "ls"),
    "sweep show": ("sweep", "show"),
    "sweep --dry-run": ("sweep", "demo", "seed=0,1", "--dry-run"),
    "train --dry-run": ("train", "demo", "--dry-run"),
    "launch slurm": ("launch", "slurm", "demo", "--dry-run"),
    "fingerprint A B": ("fingerprint", "a.json", "b.json"),
}
# The same in other forms: for the full suite.
FORMS: dict[str, tuple[str, ...]] = {
    "recipes ls --json": ("recipes", "ls", "--json"),
    "runs ls --csv": ("runs", "ls", "--csv"),
    "runs ls FILTER": ("runs", "ls", "top1_error<95"),
    "runs export TAR": ("runs", "export", FIRST, "exported.tar.gz", "--json"),
    "runs rm --dry-run": ("runs", "rm", FIRST, "--dry-run"),
    "dash --once RUN": ("dash", FIRST, "--once", "--size", "80x24"),
    "report --plots": ("report", FIRST, "-o", "page.html", "--plots", "pictures"),
}
# With one: what is done before it starts is quick, the rest takes as long as loading PyTorch.
SLOW: dict[str, tuple[str, ...]] = {
    "train": ("train", "demo", *TINY),
    "train --detach": ("train", "demo", *TINY, "--detach"),
    "resume": ("resume", FIRST),
    "sweep": ("sweep", "demo", "seed=0,1", *TINY),
    "eval": ("eval", "--run", FIRST),
    "predict": ("predict", "--run", FIRST, "image.png"),
    "profile": ("profile", "demo"),
    "sensitivity": ("sensitivity", FIRST),
    "bench": (
        "bench",
        "--network",
        "densenet86",
        "--batch",
        "1",
        "--threads",
        "1",
        "--budget",
        "0.1",
    ),
    "rerun": ("rerun", FIRST, "--check"),
    "fingerprint": ("fingerprint", "--steps", "1"),
    "runs verify": ("runs", "verify", FIRST),
    "data verify": ("data", "verify", "fashion_mnist"),
    "doctor": ("doctor",),
    "stage prepare": ("stage", "prepare", "demo", "--out", "data.json"),
    "stage train": ("stage", "train", "my.yaml", "--out", "exported"),
    "stage evaluate": ("stage", "evaluate", "demo", "--run", f"runs/{FIRST}", "--out", "out.json"),
    "stage report": (
        *("stage", "report", "demo", "--run", f"runs/{FIRST}", "--evaluation", "a.json"),
        *("--out", "page.html", "--plots", "pictures"),
    ),
}


def make_world(folder: Path) -> Path:
    """A working directory with runs, a sweep, receipts and a recipe."""
    for name, seed in ((FIRST, 1), (SECOND, 2), (BYSTANDER, 3)):
        make_run(folder / "runs" / name, f"seed={seed}").log.write_text("start: here\nworking\n")
    steps = [{"step": 1, "loss": "0x1p0", "digest": "d"}]
    receipt = {
        "digest": "d",
        "seed": 0,
        "network": {},
        "steps": steps,
        "facts": {"cpu": "one"},
        "seconds": 1.0,
    }
    for name in ("a.json", "b.json"):
        (folder / name).write_text(json.dumps(receipt))
    (folder / "my.yaml").write_text(dump_recipe(load_recipe(ROOT / "recipes" / "demo.yaml", TINY)))
    sweep = folder / "runs" / "sweeps" / "demo-0123456789"
    sweep.mkdir(parents=True)
    trial = {"index": 0, "overrides": ["seed=1"], "digest": "d", "run": FIRST}
    plan = {
        "id": sweep.name,
        "recipe": "demo",
        "axes": ["seed=1"],
        "created": 1.0,
        "trials": [trial],
    }
    (sweep / "plan.json").write_text(json.dumps({"schema_version": 1, **plan}))
    return folder


@dataclass
class Said:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


class Zygote:
    """Command lines of one process, started quickly (cli_zygote.py). A context manager."""

    def __enter__(self) -> Zygote:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.cli_zygote"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> dict[str, int]:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def call(self, argv: tuple[str, ...], world: Path, beside: Path, **order: object) -> Said:
        """Run a command line in `world`; what it prints goes to files in the folder `beside`."""
        beside.mkdir(parents=True, exist_ok=True)
        out, err = beside / "out", beside / "err"
        for path in (out, err):
            path.unlink(missing_ok=True)
        env = {
            "HOME": str(beside),
            "DGCCTL_OFFLINE": "1",
            "DGCCTL_CACHE_DIR": str(beside / "cache"),
            "TERM": "dumb",
        }
        env |= {"XDG_CACHE_HOME": str(beside), "MPLCONFIGDIR": str(beside), **order.pop("env", {})}  # type: ignore[dict-item]
        line = {
            "argv": argv,
            "env": env,
            "cwd": str(world),
            "out": str(out),
            "err": str(err),
            **order,
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(line) + "\n")
        self._server.stdin.flush()
        code = self._answer()["code"]
        return Said(code, *(path.read_bytes().decode(errors="replace") for path in (out, err)))


def listed(world: Path) -> set[str]:
    """Names of the folders that list as runs."""
    found = set()
    with contextlib.suppress(FileNotFoundError), os.scandir(world / "runs") as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith(".") and entry.name != "sweeps":
                found.add(entry.name)
    return found
