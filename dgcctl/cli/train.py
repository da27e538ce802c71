"""`dgcctl train` and `dgcctl resume`: start a trainer, show how far it is, say what it came to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc import settings as environment
from dgc.errors import DgcError, ExitCode, UsageError, error_of
from dgc.recipe.load import (
    Recipe,
    check_world_size,
    diff_recipes,
    dump_recipe,
    find_recipe,
    flatten,
    load_recipe,
)
from dgc.run import class_folders, oom
from dgc.run.code_record import sentences
from dgc.run.paths import RunDir
from dgc.run.trusted_code import trust_words_of
from dgcctl.cli._ui import completion, diagnostics, judged, options, output, summary
from dgcctl.cli._ui.starting import How, starting
from dgcctl.cli._ui.trust import require, trusting
from dgcctl.cli._ui.watching import Watch
from dgcctl.core import settings
from dgcctl.core.launch import launcher, outcome
from dgcctl.core.launch.launcher import Process, RankOptions, SignalRelay
from dgcctl.core.runs import find, initial, listing
from dgcctl.core.runs.on_end import OnEnd, leave_behind

POLL_SECONDS = 0.1
AllowChange = Annotated[
    bool,
    typer.Option(
        "--allow-change",
        help="Go on although recipe, data, code or world size changed; the run is marked.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="RUN|FILE",
        help="Start from these weights: a run's last checkpoint, or a file (model.init).",
        autocompletion=completion.complete_run,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="RUN|FILE",
        help="Learn from this network too: a run's last checkpoint, or a file (train.teacher).",
        autocompletion=completion.complete_run,
    ),
]


@trusting
@starting
def train(
    recipe: options.RecipeArgument,
    overrides: options.Overrides = None,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with this recipe's newest unfinished run, if there is one."
        ),
    ] = False,
    dry_run: options.DryRun = False,
    init: Init = None,
    teacher: Teacher = None,
    record_secrets: Annotated[
        bool,
        typer.Option(
            "--record-secrets",
            help="Copy untracked files that look like secrets into the record too.",
        ),
    ] = False,
    *,
    how: How,
) -> int | None:
    """Train a recipe and write a run directory.

    On standard output stands what it came to; progress is on standard error. Ctrl-C finishes the
    step, saves and ends with 130; a second one leaves at once.
    """
    folder = settings.runs_dir(runs_dir)
    # the weights once: a run that goes on may have a newer checkpoint when asked again
    overrides = [*(overrides or []), *initial.overrides(init, teacher, folder)]
    wanted = load_recipe(find_recipe(recipe), [*overrides, *options.data_override(data_dir)])
    require(wanted)
    _check_ranks(wanted, how.ranks)
    judged.say_what_no_longer_holds([wanted])
    _require_target(wanted, how)
    found = _unfinished(wanted, folder) if resume else None
    if dry_run:
        _say_what_would_be_done(wanted, folder, how, found)
        return None
    if found is not None:
        return _go_on(found, how, allow_change=False)
    class_folders.look(wanted.data.name, wanted.data.dir, wanted.model.num_classes)
    if record_secrets:
        os.environ[environment.RECORD_SECRETS] = "true"
    argv = {
        "argv": ["dgcctl", *sys.argv[1:]],
        "recipe_file": str(find_recipe(recipe)),
        "overrides": overrides,
    }
    with _telling(how) as ended, launcher.hearing() as heard:
        run = launcher.create(folder, wanted.name, dump_recipe(wanted), argv)
        ended.append(run)
        return _carry_out(run, wanted, replace(how, fresh=True), heard)


@trusting
@starting
def resume(
    run: options.RunArgument = "latest",
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    allow_change: AllowChange = False,
    *,
    how: How,
) -> int | None:
    """Go on with a run that stopped, failed or died, as if it had never stopped.

    --data-dir names the folder to which its images were moved; other images are a change, and
    asked about as one.
    """
    where = (f"--data-dir={data_dir.absolute()}",) if data_dir else ()
    how = replace(how, arguments=(*how.arguments, *where))
    return _go_on(find.find_run(run, settings.runs_dir(runs_dir)), how, allow_change=allow_change)


def _go_on(run: RunDir, how: How, *, allow_change: bool) -> int | None:
    state = listing.read_run(run).state
    if state == "done" and not run.config.exists():
        raise UsageError(
            f"run {run.id} is done: `dgcctl eval --run {settings.run_argument(run.path)}"
            f"{trust_words_of(run.recipe_json)}` measures it, `dgcctl train` starts another"
        )
    recipe = load_recipe(run.recipe)
    require(recipe)
    _check_ranks(recipe, how.ranks)
    _require_target(recipe, how)
    extra = ("--resume", *(("--allow-change",) if allow_change else ()))
    with _telling(how) as ended, launcher.hearing() as heard:
        ended.append(run)
        return _carry_out(run, recipe, replace(how, arguments=(*how.arguments, *extra)), heard)


def _check_ranks(recipe: Recipe, ranks: RankOptions) -> None:
    """Refuse what cannot be before anything is made or started."""
    # Raises for what torchrun would refuse, and throws the words away.
    ranks.options()
    counts = [ranks.nproc_per_node or "1", ranks.nnodes or "1"]
    if all(count.isdigit() for count in counts):
        check_world_size(recipe, int(counts[0]) * int(counts[1]))


def _require_target(recipe: Recipe, how: How) -> None:
    """Hours of training must not end in the news that there was nothing to
    hold the result against.
    """
    if how.check and not recipe.expect:
        raise UsageError(
            f"--check: {judged.why_nothing_is_expected(recipe)}: nothing was started; leave"
            " --check out"
        )


def _unfinished(recipe: Recipe, folder: Path) -> RunDir | None:
    """The newest unfinished run that computes the same; one of the same name that differs is named
    and left alone.
    """
    for run in listing.list_runs(folder):
        if run.name != recipe.name or run.state not in listing.RESUMABLE:
            continue
        try:
            past = load_recipe(run.dir.recipe)
        # An old run that cannot be read any more is none to go on with.
        except (DgcError, OSError):
            continue
        changes = diff_recipes(past, recipe, semantic=True)
        if not changes:
            return run.dir
        # One reason is enough: whoever wants all asks `dgcctl runs diff`.
        key, before, now = changes[0]
        diagnostics.note(
            f"run {run.id} is unfinished too, but differs ({key}: {before} -> {now}): left as it is"
        )
    return None


def _command(run: str, how: How) -> list[str]:
    return [*launcher.module_command("dgc.train", how.ranks), "--run-dir", run, *how.arguments]


def _say_what_would_be_done(
    recipe: Recipe, folder: Path, how: How, unfinished: RunDir | None
) -> None:
    """The resolved recipe on stdout, the rest of the plan on stderr."""
    run = folder / f"<utc>-{recipe.name}-<id>" if unfinished is None else unfinished.path
    if unfinished is not None:
        how = replace(how, arguments=(*how.arguments, "--resume"))
    command = _command(str(run), how)
    if how.json:
        output.document(
            recipe=recipe.model_dump(), digest=recipe.digest(), runs_dir=folder, command=command
        )
        return
    output.write(dump_recipe(recipe))
    plan = "make" if unfinished is None else "go on with"
    diagnostics.note(f"would {plan} {run} and start: {' '.join(command)}")


def _carry_out(run: RunDir, recipe: Recipe, how: How, heard: SignalRelay) -> int | None:
    diagnostics.note(f"run {run.id}")
    if how.fresh:
        _say_what_was_recorded(run)
    command = _command(str(run.path.absolute()), how)
    diagnostics.detail("start: " + " ".join(command))
    began, starved = time.time(), oom.kills()
    try:
        heard.raise_if_given_up()
        if how.detach or how.dash:
            return _leave_running(run, command, how)
        code = _watch(run, recipe, command, heard, resumed=not how.fresh)
        heard.raise_if_given_up()
        error = outcome.failure(run, code, since=began, starved=oom.kills() > starved)
        if error is not None:
            outcome.settle(run, error)
            raise error
    except (DgcError, OSError) as error:
        if _forget_if_nothing_began(run, error, how):
            raise _without_its_run(error) from error
        raise
    _print(run, how)
    if how.check:
        summary.check(run)
    return None


@contextlib.contextmanager
def _telling(how: How) -> Iterator[list[RunDir]]:
    """What is put into the list has ended when the block does, however that does; --on-end is told.
    Around `hearing`, so that Ctrl-C ends the command and not a trainer that is gone.
    """
    on_end = OnEnd(how.on_end, diagnostics.warn)
    ended: list[RunDir] = []
    try:
        yield ended
    finally:
        if not (how.detach or how.dash):
            for run in ended:
                on_end.begin(run)
            on_end.finish()


def _say_what_was_recorded(run: RunDir) -> None:
    """What of the code went into the record, and what did not: now,
    while it can still be mended.
    """
    for level, sentence in sentences(summary.read_optional(run, "git.json")):
        (diagnostics.warn if level == "warning" else diagnostics.note)(sentence)


def _watch(
    run: RunDir, recipe: Recipe, command: Sequence[str], heard: SignalRelay, *, resumed: bool
) -> int:
    """Follow the trainer to its end; return its exit code."""
    watch, told = Watch(run, dict(flatten(recipe)), resumed=resumed), resumed
    with launcher.start_training(run, command) as process:
        heard.attach(process, run)
        while (code := process.poll()) is None:
            watch.look()
            told = told or _say_what_was_found(run, watch)
            heard.deliver()
            _say_once(heard.passed, watch)
            time.sleep(POLL_SECONDS)
        watch.look()
    watch.clear()
    return code


def _say_what_was_found(run: RunDir, watch: Watch) -> bool:
    """Of a folder of images: how many of how many classes, once the training has begun; whether it
    was said.
    """
    if not watch.began:
        return False
    watch.clear()
    for sentence in summary.images_found(summary.read_optional(run, "data.json")):
        diagnostics.note(sentence)
    return True


def _say_once(passed: list[Any], watch: Watch) -> None:
    """The first signal is answered with what happens now; 0 marks that it was."""
    if passed and 0 not in passed:
        passed.append(0)
        watch.clear()
        diagnostics.note("stopping after this step and saving; once more leaves at once")


def _leave_running(run: RunDir, command: Sequence[str], how: How) -> int | None:
    process: Process = launcher.start_training(run, command, detach=True)
    leave_behind(how.on_end, run, process.pid)
    if how.dash:
        return subprocess.call([sys.executable, "-m", "dgcctl", "dash", str(run.path)])
    if how.json:
        output.document(run=run.id, path=run.path, pid=process.pid)
    else:
        output.line(run.id)
    diagnostics.note(
        f"training goes on as process {process.pid}: `dgcctl runs tail"
        f" {settings.run_argument(run.path)} --follow`"
    )
    return None


def _forget_if_nothing_began(run: RunDir, error: DgcError | OSError, how: How) -> bool:
    """What was refused, or given up, before the first step leaves no run behind: whether it was
    removed.
    """
    if not how.fresh or listing.read_run(run).status.step:
        return False
    # Without model.json the network was never built: its training had not begun.
    unmade = isinstance(error, OSError) or not run.model.exists()
    if diagnostics.exit_code(error) in (ExitCode.USAGE, ExitCode.DATA) or (
        unmade and _is_refusal(error)
    ):
        shutil.rmtree(run.path, ignore_errors=True)
        return True
    return False


def _without_its_run(error: DgcError | OSError) -> DgcError | OSError:
    """The error without the checkpoint of a run that is no more."""
    if isinstance(error, DgcError) and (said := outcome.without_checkpoint(str(error))) != str(
        error
    ):
        return error_of(
            int(error.exit_code), f"{said}; nothing was trained, and its run was removed"
        )
    return error


def _is_refusal(error: DgcError | OSError) -> bool:
    """Whether the error says all there is to know, so that nobody needs the run's log."""
    return diagnostics.exit_code(error) not in (ExitCode.FAILED, ExitCode.RANK_DIED)


def _print(run: RunDir, how: How) -> None:
    if how.json:
        output.document(**summary.document(run))
    else:
        output.facts(summary.rows(run))
