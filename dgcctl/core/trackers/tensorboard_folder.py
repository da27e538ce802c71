"""A run as TensorBoard reads it: FOLDER/RUN with a file of events, and the report beside it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dgc.errors import UsageError
from dgc.run.files import remove_tree, temporary_name
from dgc.run.status import State
from dgcctl.core.trackers.outgoing import Outgoing

REPORT = "report.html"
_EVENTS = "events.out.tfevents"


def write(run: Outgoing, folder: Path) -> Path:
    """Write FOLDER/RUN; an earlier export of the same run is replaced. Returns it.

    Raises UsageError where TensorBoard is not installed, or something else stands there.
    """
    writer_class = _writer_class()
    target = folder / run.id
    _require_ours(target)
    temporary = folder / temporary_name(run.id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        writer = writer_class(str(temporary))
        for event in _events(run):
            writer.add_event(event)
        writer.close()
        (temporary / REPORT).write_text(run.page, encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        remove_tree(temporary)
        raise
    return target


def _require_ours(target: Path) -> None:
    if not target.exists():
        return
    names = [path.name for path in target.iterdir()] if target.is_dir() else [""]
    if not all(name == REPORT or name.startswith(_EVENTS) for name in names):
        raise UsageError(f"{target}: stands already, and is no export of ours: name another folder")


def _writer_class() -> Any:
    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise UsageError(
            "--to tensorboard needs TensorBoard: pip install 'dgcctl[tensorboard]'"
        ) from None
    return EventFileWriter


def _events(run: Outgoing) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    for value in (_begin(run), _text("about", _about(run))):
        yield Event(wall_time=run.began, step=0, summary=value)
    for point in run.points:
        one = Summary.Value(tag=point.curve, simple_value=_single(point.value))
        yield Event(wall_time=point.moment, step=point.step, summary=Summary(value=[one]))
    for name, number in run.results.items():
        one = Summary.Value(tag=f"result/{name}", simple_value=_single(number))
        yield Event(wall_time=run.ended, step=run.last_step, summary=Summary(value=[one]))
    yield Event(wall_time=run.ended, step=run.last_step, summary=_end(run))


def _single(value: float) -> float:
    """As a float of 32 bits can say it: what is too large for one is infinite there."""
    if math.isfinite(value) and abs(value) > 3.4028235677973366e38:
        return math.copysign(math.inf, value)
    return value


def _begin(run: Outgoing) -> Any:
    from tensorboard.plugins.hparams import summary_v2

    given = {key: _hyper(value) for key, value in run.parameters.items()}
    return summary_v2.hparams_pb(given, trial_id=run.id, start_time_secs=run.began)


def _hyper(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _end(run: Outgoing) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = {
        State.DONE: api_pb2.STATUS_SUCCESS,
        State.RUNNING: api_pb2.STATUS_RUNNING,
    }.get(run.state, api_pb2.STATUS_FAILURE)
    told = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.ended)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=told)
    facts = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=facts)])


def _text(tag: str, markdown: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    facts = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=tag, metadata=facts, tensor=tensor)])


def _about(run: Outgoing) -> str:
    """Markdown: what the run is, and where its report lies."""
    facts = {
        "run": run.id,
        "title": run.title,
        "state": f"{run.state}{': ' * bool(run.reason)}{run.reason}",
        "tags": " ".join(run.tags),
        "note": run.note,
        "commit": run.commit,
        "report": f"{REPORT}, beside the file of events",
    }
    return f"{_rows(facts)}\n\n{_rows(run.results)}\n\n{_rows(run.parameters)}"


def _rows(facts: Mapping[str, Any]) -> str:
    lines = [
        f"| {key} | {_cell(value)} |" for key, value in facts.items() if value not in ("", None)
    ]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
