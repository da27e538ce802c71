"""A run directory from any script: `with dgc.run.start(name, config) as run: run.log(step,
loss=...)`.

What a training of dgcctl records is recorded: the code of the script's checkout, packages,
hardware, every step, checkpoints, how it ended. So the manager lists, filters, compares, follows,
verifies and reports it like any other run. What takes the place of a recipe is config.json. No
torch is imported here unless a checkpoint is asked for.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dgc import settings
from dgc.errors import ArgumentError, DgcError, ExitCode, ResourceError, UsageError
from dgc.run import checkpoint_store, code_record, git, provenance, script_checkpoint
from dgc.run.code_record import sentences
from dgc.run.events import EventKind, EventWriter, live_rows, read_events
from dgc.run.files import atomic_write, write_json
from dgc.run.names import checked_name, is_one_component
from dgc.run.paths import RunDir, create_run
from dgc.run.script_arguments import LEVELS, OWN, figures_of, plain, seed_of, whole
from dgc.run.script_checkpoint import Saved
from dgc.run.status import HEARTBEAT_SECONDS, State, Status, read_status, write_status
from dgc.talk import say

_BESIDE = (OWN - {"epoch"}) | {"split"}  # what stands in a row of an evaluation beside its figures


def start(
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
    title: str = "",
    tags: tuple[str, ...] = (),
    seed: int | None = None,
    steps: int = 0,
    epochs: int = 0,
    runs_dir: Path | str | None = None,
    resume: bool = False,
) -> ScriptRun:
    """Begin a run named `name` in `runs_dir` (default: $DGCCTL_RUNS_DIR, or ./runs).

    `config` is what filters and comparisons go by: numbers, texts, lists, and mappings of them.
    `seed` is what runs are averaged over; None: the `seed` of `config`, else 0. `steps` and
    `epochs` say how long it will be, where that is known. `resume`: go on with the newest run in
    that folder that stopped, failed or died and has this very name, seed, title, tags and config,
    if there is one; `saved` of the run is then its last checkpoint, and what was logged after that
    counts no more.

    Raises UsageError for a name that cannot be a folder's, ArgumentError for a config that JSON
    cannot say or whose seed is another and for tags that are one text, ResourceError where the
    folder cannot be made, IntegrityError where all checkpoints to go on from are damaged.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"name is a {type(name).__name__}: give a text")
    checked_name(name, "name")
    if isinstance(tags, str):  # its letters would be tags
        raise ArgumentError(f"tags is one text: give a list, [{tags!r}]")
    given = plain(dict(config or {}), "config")
    document = {
        "name": name,
        "title": title,
        "tags": list(tags),
        "seed": seed_of(seed, given),
        "config": given,
    }
    folder = Path(runs_dir) if runs_dir is not None else settings.runs_dir()
    status = Status(state=State.RUNNING, steps=steps, epochs=epochs)
    script = _script()
    if resume and (earlier := script_checkpoint.unfinished(folder, document)) is not None:
        return _resumed(earlier, status, script)
    try:
        run = create_run(folder, name)
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot make a run directory here ({error.strerror})"
        ) from error
    if resume:
        say(f"dgc.run: no run of this name and config to go on with: {run.id} begins")
    _record(run, document, script)
    return ScriptRun(run, status)


def _record(run: RunDir, document: Mapping[str, Any], script: Path | None) -> None:
    run.control.mkdir()
    # config.json first: it is what tells a script's run from one of a recipe
    write_json(run.config, document)
    write_json(
        run.argv, {"argv": list(sys.argv), "cwd": str(Path.cwd()), "script": script and str(script)}
    )
    facts = _code(script, run)
    write_json(run.git, facts)
    for level, text in sentences(facts):
        provenance.append_log(run, f"{level}: {text}")
    write_json(run.env, {**provenance.machine(), "packages": provenance.packages()})


def _resumed(run: RunDir, status: Status, script: Path | None) -> ScriptRun:
    """The run goes on from its last checkpoint, or from its beginning where it has none."""
    saved = script_checkpoint.saved(run)
    before = read_status(run)
    status.started = before.started
    status.paused = before.paused + max(0.0, time.time() - before.heartbeat)
    status.step, status.epoch = (saved.step, saved.epoch) if saved else (0, 0)
    # whoever asked the last start to stop did not mean this one
    (run.control / "stop").unlink(missing_ok=True)
    going_on = ScriptRun(run, status, saved)
    going_on.say_resumed()
    say(f"dgc.run: goes on with {run.id} from step {status.step}")
    if script_checkpoint.code_changed(run, lambda place: _code(script, place)):
        text = "the code has changed since this run began; its record keeps the first"
        going_on.note(text, "warning")
        say(f"dgc.run: {text}")
    return going_on


def _script() -> Path | None:
    """The file of whoever called `start`; None in a notebook or an interpreter."""
    # the first frame that is not ours; a notebook's has no file
    for frame in inspect.stack()[1:]:
        path = Path(frame.filename)
        if path.resolve() != Path(__file__).resolve() and path.name != "__init__.py":
            return path.resolve() if path.is_file() else None
    return None


def _code(script: Path | None, run: RunDir) -> dict[str, Any]:
    """git.json: of the checkout that the script lies in, else of the folder that it runs in."""
    place = script.parent if script is not None else Path.cwd()
    try:
        root = git.toplevel(place)
    except git.GitError as error:  # a record that lacks the code is better than no run
        root, problem = None, str(error)
    else:
        problem = f"{place} is in no git checkout"
    facts = code_record.code_facts(root, run) if root else code_record.nowhere(problem)
    if script is None:
        why = "the script came from no file, and is not recorded"
        return {**facts, "restorable": False, "problem": why}
    if not facts.get("commit"):
        atomic_write(run.file("script.py"), script.read_bytes())
        facts["problem"] = f"{facts['problem']}, so the script itself is all that is recorded"
    return facts


class ScriptRun:
    """A run that a script writes. Use it in a `with` block: its end is the end of the run."""

    def __init__(self, run: RunDir, status: Status, saved: Saved | None = None) -> None:
        self.dir, self.status = run, status
        # the checkpoint that `start(..., resume=True)` found: `step`, `epoch`, `weights`, `state`
        self.saved = saved
        self._events = EventWriter(run)
        # status.json is written by the heartbeat and by `finish`, never by both at once
        self._lock, self._stop = threading.Lock(), threading.Event()
        # a daemon: a script that never ends its run can still end, and the run is seen to have died
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._write_status()
        self._thread.start()

    @property
    def id(self) -> str:
        return self.dir.id

    @property
    def path(self) -> Path:
        return self.dir.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        # SystemExit(0) is how scripts end well
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish(State.DONE)
        elif isinstance(error, KeyboardInterrupt):
            self.finish(State.STOPPED, "Ctrl-C", ExitCode.INTERRUPTED)
        else:
            text = " ".join(str(error).split())
            reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
            self.finish(State.FAILED, reason, ExitCode.FAILED)

    def log(self, step: int, /, *, epoch: int | None = None, **figures: float) -> None:
        """Figures of a training step, by name: `loss`, `lr` and `error` (per cent) have charts.

        Tensors must have been read by the caller: reading one makes the host wait for the device.
        """
        self._require_going_on()
        # the step first: `step=` of another program's call would be taken for a figure
        number, found = whole(step, "log("), figures_of(figures)
        self._place("log", number, epoch)
        row = {"step": self.status.step, "epoch": self.status.epoch, **found}
        self._events.append(EventKind.STEP, **row)
        # another dict: the heartbeat may be reading the one that stands there
        self.status.logged = {**self.status.logged, **found}

    def evaluate(self, step: int, /, *, epoch: int | None = None, **figures: float) -> None:
        """Figures of an evaluation: `top1_error` (per cent), `loss`, or others. The last ones are
        the run's result, by which runs are compared.
        """
        self._require_going_on()
        # the step first: `step=` of another program's call would be taken for a figure
        number, found = whole(step, "evaluate("), figures_of(figures)
        self._place("evaluate", number, epoch)
        place = {"step": self.status.step, "epoch": self.status.epoch}
        row = {**place, "split": "val", **found}
        self._events.append(EventKind.EVAL, **row)
        write_json(self.dir.metrics, {**found, "epoch": self.status.epoch}, point="metrics")

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the run to stop (`dgcctl runs stop`, the dashboard). A script that
        likes to hear it saves, calls `stop()`, and leaves.
        """
        return (self.dir.control / "stop").exists()

    def stop(self, reason: str = "asked to stop") -> None:
        """End the run as stopped."""
        self.finish(State.STOPPED, reason, ExitCode.PREEMPTED)

    def note(self, text: str, level: str = "info") -> None:
        """A line of log.txt; `warning` and `error` are shown by the dashboard too."""
        self._require_going_on()
        if level not in LEVELS:
            raise ArgumentError(f"level is {level!r}: give one of {', '.join(LEVELS)}")
        provenance.append_log(self.dir, f"{level}: {text}")
        if level != "info":
            self._events.append(EventKind.ALERT, level=level, text=text)

    def image(self, name: str, png: bytes) -> Path:
        """Keep a picture (the bytes of a PNG file) as images/NAME.png; one of that name goes."""
        self._require_going_on()
        whole_png = isinstance(png, bytes) and png.startswith(b"\x89PNG")
        if not is_one_component(name) or not whole_png:
            raise ArgumentError(f"image {name!r}: should be a file's name, and the bytes of a PNG")
        target = self.dir.file("images") / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        atomic_write(target, png)
        return target

    def checkpoint(
        self, model: Any, *, step: int | None = None, state: Mapping[str, Any] | None = None
    ) -> Path:
        """Save the weights of a network (a torch module, or a mapping of tensors) as a checkpoint
        of the run, all of it or nothing. `state`: what the script needs to go on, by name, e.g.
        `{"optimizer": optimizer.state_dict()}`. Returns its folder; `model.safetensors` in it can
        be named with `--init`.
        """
        self._require_going_on()
        number = self.status.step if step is None else whole(step, "checkpoint(model, step=")
        began = time.monotonic()
        files = script_checkpoint.encode(model, state, self.status.epoch)
        run = self.dir_with("checkpoints")
        script_checkpoint.require_later(run, number)
        then = "make room, then start the script again with resume=True"
        written = checkpoint_store.commit(run, number, files, then=then)
        checkpoint_store.point_to(self.dir.last, written)
        self._events.append(
            EventKind.CHECKPOINT,
            step=number,
            epoch=self.status.epoch,
            path=f"checkpoints/{written.path.name}",
            bytes=sum(map(len, files.values())),
            ms=round(1000 * (time.monotonic() - began), 1),
            best=False,
        )
        return written.path

    def say_resumed(self) -> None:
        """Write down where the run goes on: rows that were logged after that count no more."""
        for text in self.saved.passed_over if self.saved else ():
            self.note(f"passed over a damaged checkpoint: {text}", "warning")
            say(f"dgc.run: passed over a damaged checkpoint: {text}")
        checkpoint_store.set_aside_after(self.dir, self.status.step)
        # whether the script computes exactly what it would have, nobody here knows
        self._events.append(EventKind.RESUME, step=self.status.step, exact=None)
        self.note(f"resumed from step {self.status.step}")
        self._keep_last_result()

    def _keep_last_result(self) -> None:
        """metrics.json is of an evaluation that counts, or is none; so is what was logged."""
        rows = live_rows(read_events(self.dir))
        for row in (row for row in rows if row["kind"] == EventKind.STEP):
            figures = {key: value for key, value in row.items() if key not in OWN}
            self.status.logged = {**self.status.logged, **figures}
        kept = [row for row in rows if row["kind"] == EventKind.EVAL]
        if kept:
            figures = {key: value for key, value in kept[-1].items() if key not in _BESIDE}
            write_json(self.dir.metrics, figures, point="metrics")
        else:
            self.dir.metrics.unlink(missing_ok=True)

    def dir_with(self, folder: str) -> RunDir:
        self.dir.file(folder).mkdir(exist_ok=True)
        return self.dir

    def finish(self, state: State = State.DONE, reason: str = "", exit_code: int = 0) -> None:
        """End the run (the end of a `with` block does). A second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        # a last heartbeat must not come after the end and call the run running again
        self._thread.join()
        self.status.state, self.status.reason = str(state), reason
        self.status.exit_code = int(exit_code)
        # a disk that refuses the last lines must not hide why the script ended
        with contextlib.suppress(OSError, DgcError):
            self._events.append(
                EventKind.END, state=str(state), reason=reason, step=self.status.step
            )
            self._events.sync()
        # closed also where the disk refused: a descriptor is not given back by an error
        self._events.close()
        with contextlib.suppress(OSError, DgcError):
            self._write_status()

    def _place(self, call: str, step: int, epoch: int | None) -> None:
        if epoch is not None:
            self.status.epoch = whole(epoch, f"{call}({step}, epoch=")
        self.status.step = step

    def _require_going_on(self) -> None:
        if self._stop.is_set():
            raise UsageError(
                f"{self.id} has ended (its `with` block, stop() or finish()): nothing can be added"
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError, DgcError):
                self._write_status()

    def _write_status(self) -> None:
        with self._lock:
            self.status.heartbeat = time.time()
            write_status(self.dir, self.status)
