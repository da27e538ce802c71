"""What a result costs: the MACs of the network that was evaluated, also where its schedule was cut
short.
"""

from pathlib import Path

import pytest
from torch import nn

from dgc.hub.weights_export import metrics_at
from dgc.jobs import evaluate, metadata
from dgc.layers import iter_dgc, macs
from dgc.layers.macs import Complexity
from dgc.recipe.load import load_recipe
from dgc.run.events import EventKind, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train import costs
from dgc.train.main import run_training
from dgc.train.session import Options
from dgc.train.signals import Signals
from dgcctl.cli._ui import summary
from dgcctl.core.report.page import _macs
from dgcctl.core.report.run_view import views
from dgcctl.core.repro.verify import Outcome, verify
from dgcctl.core.runs.listing import read_run
from dgcctl.core.runs.record import read_record
from tests.faults.training import RECIPE


def trained(folder: Path, *changes: tuple[str, str]) -> RunDir:
    text = RECIPE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "recipe.yaml").write_text(text)
    run_training(RunDir(folder), Options(), Signals())
    return RunDir(folder)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Its schedule prunes nothing yet in the one step that it trains."""
    return trained(tmp_path_factory.mktemp("short"), ("epochs: 3", "epochs: 3, max_steps: 1"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return trained(tmp_path_factory.mktemp("whole"))


def test_a_network_is_counted_again_only_where_other_channels_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each count runs a copy of the network: once an evaluation while it is pruned, then never."""
    counted: list[tuple[int, ...]] = []

    def count(model: nn.Module, image_size: int, device: str) -> Complexity:
        counted.append(tuple(layer.n_inactive for _, layer in iter_dgc(model)))
        return macs.count(model, image_size, device=device)

    monkeypatch.setattr(costs, "count", count)
    run = trained(tmp_path)
    events = [event["kind"] for event in read_events(run)]
    assert events.count(EventKind.EVAL) == events.count(EventKind.GATES) == 3
    assert len(counted) == len(set(counted)) <= 3


def measured(run: RunDir, out: Path) -> dict:
    assert evaluate.main(["--run-dir", str(run.path), "--json", str(out), "--device", "cpu"]) == 0
    return read_json(out)


def test_the_figures_of_a_short_run_are_those_of_its_checkpoint(
    short: RunDir, tmp_path: Path
) -> None:
    metrics, model = read_json(short.metrics), read_json(short.model)
    found = measured(short, tmp_path / "out.json")
    end = model["macs_at_end_of_schedule"]["executed"]
    assert metrics["macs_executed"] == found["macs"]["executed"] > end
    assert found["macs_at_end_of_schedule"]["executed"] == end
    assert read_run(short).row()["macs_executed"] == found["macs"]["executed"]
    assert metrics_at(short, 1)["macs_executed"] == found["macs"]["executed"]
    (view,) = views([read_record(short)])
    assert _macs(view)["executed"] == found["macs"]["executed"]


def test_a_short_run_says_that_its_pruning_is_not_finished(short: RunDir, whole: RunDir) -> None:
    end = read_json(short.model)["macs_at_end_of_schedule"]["executed"]
    lines = dict(summary.rows(short))
    assert lines["pruning"] == (
        f"not finished at this step: at the end of its schedule the network executes {end:,} MACs"
    )
    assert lines["MACs, executed"].startswith(f"{read_json(short.metrics)['macs_executed']:,}  ")
    assert "pruning" not in dict(summary.rows(whole))


def test_the_figures_of_a_whole_run_are_those_of_the_end(whole: RunDir, tmp_path: Path) -> None:
    end = read_json(whole.model)["macs_at_end_of_schedule"]
    assert read_json(whole.metrics)["macs_executed"] == end["executed"]
    assert measured(whole, tmp_path / "out.json")["macs"] == end


def test_an_export_of_an_earlier_step_does_not_claim_the_last_ones_pruning(whole: RunDir) -> None:
    first, last = metrics_at(whole, 6), metrics_at(whole, 18)
    assert last["macs_executed"] == read_json(whole.metrics)["macs_executed"]
    assert "macs_executed" not in first
    assert first["macs_dense"] == last["macs_dense"]


@pytest.mark.parametrize("name", ["short", "whole"])
def test_verify_counts_what_the_checkpoint_executes(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    outcomes = {check.name: check for check in verify(run, recompute=lambda run: metadata.measure(
        load_recipe(run.recipe), run=run))}  # fmt: skip
    assert outcomes["metrics.json: macs_executed"].outcome is Outcome.OK
    assert outcomes["MACs at the end of the schedule, executed"].outcome is Outcome.OK


def test_before_any_evaluation_the_figure_says_what_it_is_of(short: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    for name in ("recipe.yaml", "status.json", "model.json"):
        (run.path / name).write_bytes((short.path / name).read_bytes())
    lines = dict(summary.rows(run))
    assert lines["MACs, executed"].endswith(
        "that are really multiplied after all pruning, gates included"
    )
