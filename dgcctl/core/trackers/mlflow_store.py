"""A run as MLflow keeps it: FOLDER/mlflow.db, and its files in FOLDER/artifacts."""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dgc.errors import UsageError
from dgc.run.status import State
from dgcctl.core.trackers.outgoing import Outgoing

EXPERIMENT = "dgcctl"  # $MLFLOW_EXPERIMENT_NAME is another
ID_TAG = "dgcctl.run"
_METRICS, _PARAMETERS = 1000, 100  # of one call
_LONGEST = 6000  # characters of a parameter's value
_STATES = {State.DONE: "FINISHED", State.RUNNING: "RUNNING", State.STOPPED: "KILLED"}


def address(folder: Path) -> str:
    """What `mlflow ui --backend-store-uri` is given."""
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


def write(run: Outgoing, folder: Path) -> Path:
    """Add the run to the store of a folder; an earlier export of the same run is deleted there, as
    MLflow deletes. Returns the database. Raises UsageError where MLflow is not installed.
    """
    client_class = _client_class()
    folder.mkdir(parents=True, exist_ok=True)
    client = client_class(tracking_uri=address(folder))
    experiment = _experiment(client, folder)
    wanted = f"tags.`{ID_TAG}` = '{_quotable(run.id)}'"
    before = client.search_runs([experiment], wanted)
    made = client.create_run(
        experiment, start_time=_ms(run.began), tags=_tags(run), run_name=run.id
    )
    number = made.info.run_id
    try:
        _fill(client, number, run)
    except BaseException:
        client.delete_run(number)
        raise
    for old in before:
        client.delete_run(old.info.run_id)
    return folder / "mlflow.db"


def _fill(client: Any, number: str, run: Outgoing) -> None:
    for some in _batched(list(_metrics(run)), _METRICS):
        client.log_batch(number, metrics=some)
    for some in _batched(_parameters(run), _PARAMETERS):
        client.log_batch(number, params=some)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "report.html"
        page.write_text(run.page, encoding="utf-8")
        client.log_artifact(number, str(page))
    if run.state is not State.RUNNING:
        ended = _ms(run.ended)
        client.set_terminated(number, _STATES.get(run.state, "FAILED"), end_time=ended)


def _client_class() -> Any:
    # its own talk, and what it would tell its makers
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import sqlalchemy  # noqa: F401  mlflow-skinny comes without it
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UsageError("--to mlflow needs MLflow: pip install 'dgcctl[mlflow]'") from None
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient


def _experiment(client: Any, folder: Path) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    place = (folder / "artifacts").absolute().as_uri()
    return str(client.create_experiment(name, artifact_location=place))


def _batched(rows: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _metrics(run: Outgoing) -> Iterator[Any]:
    from mlflow.entities import Metric

    for point in run.points:
        yield Metric(_name(point.curve), point.value, _ms(point.moment), point.step)
    for name, value in run.results.items():
        yield Metric(_name(name), value, _ms(run.ended), run.last_step)


def _parameters(run: Outgoing) -> Sequence[Any]:
    from mlflow.entities import Param

    return [Param(_name(key), _cut(_word(value))) for key, value in run.parameters.items()]


def _tags(run: Outgoing) -> dict[str, str]:
    told = {
        ID_TAG: _quotable(run.id),
        "dgcctl.state": str(run.state),
        "dgcctl.reason": run.reason,
        "dgcctl.tags": " ".join(run.tags),
        "mlflow.note.content": "\n\n".join(filter(None, (run.title, run.note))),
        "mlflow.source.git.commit": run.commit,
    }
    return {key: _cut(value) for key, value in told.items() if value}


def _word(value: Any) -> str:
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _cut(text: str) -> str:
    return text if len(text) < _LONGEST else text[: _LONGEST - 1] + "…"


def _name(key: str) -> str:
    """A name that MLflow takes: other characters than letters, digits, `_ - .
    / :` and blanks are an underscore.
    """
    return re.sub(r"[^\w\-. :/]", "_", key)


def _quotable(run_id: str) -> str:
    """A folder's name as a query can hold it; ids that were made here are such."""
    return run_id.replace("'", "_").replace("\\", "_")


def _ms(seconds: float) -> int:
    return int(1000 * seconds) if math.isfinite(seconds) else 0
