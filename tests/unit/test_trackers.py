"""`runs export --to`: TensorBoard, MLflow and wandb read back what was exported, value for value.

Written by their own libraries in a process of its own, read by TensorBoard's and MLflow's readers,
and by wandb's own records.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import dgc
from dgc.run.events import read_events
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.cli.main import main
from dgcctl.core.runs.record import flat_recipe
from tests.unit.run_factory import make_run
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
needs = {
    "tensorboard": pytest.mark.skipif(
        importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard"
    ),
    "mlflow": pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow"),
    "wandb": pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb"),
}
DEMO = "20260101T000000Z-demo-000001"
ODD = {"lr": 0.1, "net": {"width": 32, "name": "a|b\nc"}, "flags": [True, None, 3], "none": None}
FAMILY = {"step": "train", "eval": "eval", "epoch": "epoch"}
Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training, and a script that logged what JSON or 32 bits cannot hold and then failed."""
    folder = tmp_path_factory.mktemp("trackers") / "runs"
    make_run(folder / DEMO, "optim.lr=0.05", "tags=[study]")
    with dgc.run.start("odd", ODD, title="An odd one", runs_dir=folder) as run:
        for step, loss in enumerate((0.1 + 0.2, math.nan, math.inf, -math.inf, 1e-3), start=1):
            run.log(step, loss=loss, count=2**40 + step)
        run.evaluate(5, epoch=1, top1_error=100 / 3, loss=0.7)
        run.finish(State.FAILED, "it broke", 1)
    return folder


def named(runs: Path, name: str) -> RunDir:
    (found,) = (path for path in runs.iterdir() if f"-{name}-" in path.name)
    return RunDir(found)


def logged(run: RunDir) -> Curves:
    """Every figure of the log by the name of its curve, from the lines themselves."""
    found: Curves = {}
    for event in read_events(run):
        if event["kind"] in FAMILY:
            odd = {key: float(text) for key, text in event.get("nonfinite", {}).items()}
            for key, value in {**event, **odd}.items():
                if key not in ("step", "epoch", "t") and isinstance(value, int | float):
                    curve = f"{FAMILY[event['kind']]}/{key}"
                    found.setdefault(curve, []).append((event["step"], float(value)))
    return found


def results(run: RunDir) -> dict[str, float]:
    found = json.loads(run.metrics.read_text())
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and key not in ("schema_version", "epoch")
    }


def same(found: float, wanted: float) -> bool:
    return found == wanted or (math.isnan(found) and math.isnan(wanted))


def differing(found: Curves, wanted: Curves) -> list[str]:
    wrong = [name for name in wanted if name not in found]
    for name in found:
        pairs = zip(sorted(found[name]), sorted(wanted.get(name, [])), strict=False)
        if len(found[name]) != len(wanted.get(name, [])) or not all(
            a[0] == b[0] and same(a[1], b[1]) for a, b in pairs
        ):
            wrong.append(f"{name}: {found[name]} is not {wanted.get(name)}")
    return wrong


def export(runs: Path, to: str, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["state=done", "or", "state=failed", "--to", to, "-o", str(target), *more]
    return subprocess.run(
        [sys.executable, "-m", "dgcctl", "runs", "export", *words, "--runs-dir", str(runs)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )


def exported(
    runs: Path, to: str, folder: Path, reader: Any
) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Each run with what the reader finds, after it was exported twice: once too often."""
    target = folder / "a b'c"
    for _ in range(2):
        done = export(runs, to, target)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2, done.stdout
        assert done.stderr.count("look at it: ") == 1, done.stderr
    for name in ("demo", "odd"):
        run = named(runs, name)
        yield run, reader(target, run)


@needs["tensorboard"]
def test_tensorboard_reads_back_what_was_exported(runs: Path, tmp_path: Path) -> None:
    for run, found in exported(runs, "tensorboard", tmp_path, read_tensorboard):
        single = {
            curve: [(step, struct.unpack("f", struct.pack("f", value))[0]) for step, value in rows]
            for curve, rows in logged(run).items()
        }
        assert differing(found["curves"], single) == []
        for name, value in results(run).items():
            assert same(found["results"][name], struct.unpack("f", struct.pack("f", value))[0])
        assert found["parameters"].keys() == parameters(run).keys()
        for key, value in parameters(run).items():
            if isinstance(value, bool | int | float):
                assert found["parameters"][key] == value, key
        assert found["status"] == ("STATUS_SUCCESS" if "demo" in run.id else "STATUS_FAILURE")
        assert run.id in found["about"]
        assert "</html>" in found["report"]


def read_tensorboard(target: Path, run: RunDir) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    events = EventAccumulator(str(target / run.id), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    content = events.PluginTagToContent("hparams")
    started = metadata.parse_session_start_info_plugin_data(
        content[metadata.SESSION_START_INFO_TAG]
    )
    ended = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
    (about,) = events.Tensors("about")
    return {
        "curves": {tag: rows for tag, rows in scalars.items() if not tag.startswith("result/")},
        "results": {
            tag.removeprefix("result/"): rows[0][1]
            for tag, rows in scalars.items()
            if tag.startswith("result/")
        },
        "parameters": {
            key: getattr(value, value.WhichOneof("kind")) for key, value in started.hparams.items()
        },
        "status": api_pb2.Status.Name(ended.status),
        "about": about.tensor_proto.string_val[0].decode(),
        "report": (target / run.id / "report.html").read_text(),
    }


def parameters(run: RunDir) -> dict[str, Any]:
    if run.recipe.exists():
        return flat_recipe(run.recipe)
    told = json.loads(run.config.read_text())
    flat = {"lr": 0.1, "net.width": 32, "net.name": "a|b\nc", "flags": [], "none": None}
    return {**flat, **{key: told[key] for key in ("name", "title", "tags", "seed")}}


@needs["mlflow"]
def test_mlflow_reads_back_what_was_exported(runs: Path, tmp_path: Path) -> None:
    for run, found in exported(runs, "mlflow", tmp_path, read_mlflow):
        # its database has no infinity: the largest number that it can hold stands for it
        most = sys.float_info.max
        wanted = {
            curve: [(s, math.copysign(most, v) if math.isinf(v) else v) for s, v in rows]
            for curve, rows in logged(run).items()
        }
        metrics = found["metrics"]
        assert differing({k: v for k, v in metrics.items() if "/" in k}, wanted) == []
        for name, value in results(run).items():
            assert same(metrics[name][0][1], value)
        assert found["parameters"].keys() == parameters(run).keys()
        for key, value in parameters(run).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert float(found["parameters"][key]) == value, key
        assert found["status"] == ("FINISHED" if "demo" in run.id else "FAILED")
        assert "</html>" in found["report"]


def read_mlflow(target: Path, run: RunDir) -> dict[str, Any]:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{target / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dgcctl")
    assert experiment is not None
    all_runs = client.search_runs([experiment.experiment_id])
    assert len(all_runs) == 2  # those of the first export are deleted
    (kept,) = (each for each in all_runs if each.data.tags["dgcctl.run"] == run.id)
    page = Path(unquote(urlsplit(kept.info.artifact_uri).path)) / "report.html"
    return {
        "metrics": {
            key: [(m.step, m.value) for m in client.get_metric_history(kept.info.run_id, key)]
            for key in kept.data.metrics
        },
        "parameters": kept.data.params,
        "status": kept.info.status,
        "report": page.read_text(),
    }


@needs["wandb"]
def test_wandb_reads_back_what_was_exported(runs: Path, tmp_path: Path) -> None:
    for run, found in exported(runs, "wandb", tmp_path, read_wandb):
        assert differing(found["curves"], logged(run)) == []
        for name, value in results(run).items():
            assert same(float(found["summary"][name]), value)
        assert found["parameters"].keys() == parameters(run).keys()
        for key, value in parameters(run).items():
            if value is None or isinstance(value, bool | int | float):
                assert found["parameters"][key] == value, key
        assert found["exit_code"] == (0 if "demo" in run.id else 1)
        assert found["times"] == sorted(found["times"])
        assert "</html>" in found["report"]


def read_wandb(target: Path, run: RunDir) -> dict[str, Any]:
    (folder,) = (target / "wandb").glob(f"offline-run-*-{run.id}")
    (file,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"curves": {}, "parameters": {}, "summary": {}, "times": []}
    for record in wandb_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            found["parameters"].update({k: v for k, v in config.items() if k != "_wandb"})
        if kind == "history":
            items = record.history.item
            row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
            for key, value in row.items():
                if key.startswith(("train/", "eval/", "epoch/")):
                    found["curves"].setdefault(key, []).append((row["_step"], float(value)))
                if key == "_timestamp":
                    found["times"].append(value)
        if kind == "summary":
            told = {i.key: json.loads(i.value_json) for i in record.summary.update}
            found["summary"].update(told)
        if kind == "exit":
            found["exit_code"] = record.exit.exit_code
    found["report"] = (folder / "files" / "report.html").read_text()
    return found


def wandb_records(file: Path) -> Iterator[Any]:
    """What wandb wrote: LevelDB's log format, records of protobuf in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_what_cannot_be_is_one_line_and_leaves_nothing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ["--runs-dir", str(runs)]

    def refused(*words: str) -> str:
        assert main(["runs", "export", "odd", *words, *at]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    target = tmp_path / "out"
    known = "should be tensorboard, mlflow, wandb"
    assert refused("--to", "neptune", "-o", str(target)) == f"error: --to neptune: {known}"
    assert "leave it out" in refused("--to", "wandb", "--checkpoints", "all", "-o", str(target))
    for to in ("tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, to, None)
        for name in [name for name in sys.modules if name.startswith(f"{to}.")]:
            monkeypatch.delitem(sys.modules, name)
        said = refused("--to", to, "-o", str(target))
        assert f"pip install 'dgcctl[{to}]'" in said
    assert not target.exists()
    target.write_text("x")
    assert "is a file; --to wandb writes into a folder" in refused(
        "--to", "wandb", "-o", str(target)
    )


@needs["tensorboard"]
def test_what_stands_there_and_is_no_export_of_ours_stays(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / DEMO / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("x")
    words = ["runs", "export", DEMO, "--to", "tensorboard", "-o", str(tmp_path)]
    assert main([*words, "--runs-dir", str(runs)]) == 2
    assert "stands already, and is no export of ours" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [DEMO]
    assert mine.read_text() == "x"


PROGRAM = """
import sys
from dgcctl.cli.main import main
code = main(["runs", "export", "latest", "--to", sys.argv[1], *sys.argv[2:]])
assert not {"torch", "torchvision"} & set(sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize("to", [pytest.param(name, marks=needs[name]) for name in needs])
def test_no_torch_is_loaded(to: str, runs: Path, tmp_path: Path) -> None:
    words = [to, "-o", str(tmp_path / "out"), "--json", "--runs-dir", str(runs)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert row["to"] == to
    assert row["figures"] > 0
