"""Run a recorded run again: its code in a clean worktree, its recipe, seed and data; then hold both
logs together.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dgc
from dgc.errors import DgcError, ExitCode, IntegrityError, UsageError, error_of
from dgc.kernels.sources import built_from, library_of
from dgc.recipe.load import dump_recipe, load_recipe
from dgc.run import code_record, provenance, trusted_code
from dgc.run.class_folders import FOLDER_SETS
from dgc.run.events import EventKind
from dgc.run.files import atomic_write, read_json, write_json
from dgc.run.paths import RunDir, create_run
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.core import settings
from dgcctl.core.compare.rundiff import Difference, diff_runs
from dgcctl.core.launch import launcher
from dgcctl.core.launch.launcher import RankOptions
from dgcctl.core.launch.query import query, silently
from dgcctl.core.launch.run_to_end import Onlooker, run_to_end
from dgcctl.core.repro import circumstances, gitstate, kernels, leftovers, run_in_tree
from dgcctl.core.repro.divergence import (
    Comparison,
    check_metrics,
    first_difference,
    tensor_differences,
)
from dgcctl.core.runs.record import RunRecord, read_record

TRAINER = "dgc.train"
IN_A_FOLDER = frozenset({"cifar10", "cifar100", *FOLDER_SETS})
Agree = Callable[[Sequence[str]], None]
Show = Callable[[RunDir], Onlooker]


@dataclass(frozen=True)
class Repetition:
    """Both runs, what the comparison showed, and how the circumstances differ."""

    recorded: RunDir
    repeated: RunDir
    comparison: Comparison
    circumstances: list[Difference]


def repeat(
    run: RunDir,
    runs: Path,
    *,
    current_code: bool = False,
    repository: Path | None = None,
    trainer: str = TRAINER,
    agree: Agree | None = None,
    say: kernels.Say = silently,
    data_dir: Path | None = None,
    show: Show | None = None,
) -> RunDir:
    """Run `run` again into a new directory of `runs`, which is returned when it is done.

    `agree` is shown what differs here from the record and can change bits, before anything is
    trained; it raises where that will not do. `show` makes what tells how far the new run is.
    Raises UsageError for a run that is not done or whose code is not here, and the trainer's error.
    """
    facts = read_record(run)
    if facts.state is not State.DONE:
        raise UsageError(
            f"{run.id}: the run is {facts.state}, so there is no result to repeat: `dgcctl resume"
            f" {settings.run_argument(run.path)}{trusted_code.trust_words_of(run.recipe_json)}`"
        )
    place = _current(say) if current_code else _code_of(facts, repository, say)
    # the worktree lives as long as the run: workers import from it while they train
    with place as tree:
        try:
            # All that may make somebody decide against it is said before a run directory is made.
            env = _prepare(facts, tree, agree, say)
        except circumstances.CannotImportError as error:
            raise DgcError(_not_imported(facts, tree, str(error), current=current_code)) from error
        # as bytes: the digest of the recipe must not change by being read and written
        recipe = facts.run.recipe.read_bytes() if data_dir is None else _moved(facts, data_dir)
        again = _new_run(facts, runs, recipe)
        try:
            shown = show(again) if show is not None else None
            run_to_end(again, command(facts, again, tree, trainer), env, shown)
        except DgcError as error:
            _forget_if_nothing_began(again)
            if not current_code or error.exit_code >= ExitCode.PREEMPTED:
                raise
            # a signal is no fault of the code, and needs no such word
            text = f"the current code was run, not that of {run.id}: {error}"
            raise error_of(error.exit_code, text) from error
    return again


def _current(say: kernels.Say) -> contextlib.AbstractContextManager[Path]:
    say(f"code: the one that is here, in {_own_code()} (--current-code)")
    return contextlib.nullcontext(_own_code())


def _not_imported(facts: RunRecord, tree: Path, fault: str, *, current: bool) -> str:
    """Where the fault is, and what of the record may be its cause."""
    if current:
        advice = "mend it, or run the code of the record without --current-code"
        return f"{facts.id}: the current code ({tree}) cannot be imported: {fault}: {advice}"
    lacking = code_record.left_out_names(facts.git)
    named = [
        f"{name} was left out of the record ({why})"
        for name, why in lacking.items()
        # a file that was left out, and that the fault names, is the likeliest cause
        if Path(name).stem in re.findall(r"\w+", fault)
    ]
    said = named or code_record.left_out(facts.git)
    return "; ".join([f"{facts.id}: the restored code cannot be imported: {fault}", *said[:3]])


def _prepare(facts: RunRecord, tree: Path, agree: Agree | None, say: kernels.Say) -> dict[str, str]:
    """The environment to train in, with the record's kernels and threads;
    `agree` hears what cannot be had.
    """
    found = kernels.FoundKernels(None, "")
    # A worktree of git holds no library: what is compiled is not tracked. Without one of the
    # recorded sources older code would compute by PyTorch, with other last bits.
    if circumstances.uses_kernels(facts) and tree != _own_code():
        found = kernels.put_into(tree, say)
        if found.library is not None:
            say(f"kernels: {found.words}")
    env = _environment(facts)
    if agree is not None:
        here = circumstances.examine(tree, _folder(facts), env)
        level = circumstances.level(facts, here)
        # said to the trainer, not chosen by it: a wider level would compute other bits
        env |= {"DGC_NATIVE_ISA": level} if level else {}
        built = built_from(found.library or library_of(tree / "dgc") or Path())
        agree(circumstances.changes(facts, here, "" if found.library else found.words, built))
    return env


def compare(run: RunDir, again: RunDir, tolerances: Mapping[str, float]) -> Repetition:
    """Hold the repetition against the record: rows, tensors, final metrics.
    Raises IntegrityError for an empty log.
    """
    a, b = read_record(run), read_record(again)
    if not a.rows:
        raise IntegrityError(f"{run.events}: no metric rows, so nothing can be compared")
    found = Comparison(
        rows=len(a.rows),
        first=first_difference(a.rows, b.rows),
        tensors=tensor_differences(run, again),
        metrics=check_metrics(a.rows, b.rows, tolerances),
    )
    differing = [
        row for row in diff_runs(a, b).differences if row.section in ("data", "environment")
    ]
    return Repetition(run, again, found, differing)


def command(facts: RunRecord, again: RunDir, tree: Path, trainer: str) -> list[str]:
    """The process that trains with the code of `tree`; as many ranks as the record says."""
    boot = [
        sys.executable,
        "-P",
        str(run_in_tree.__file__),
        str(tree),
        str(_folder(facts)),
        trainer,
    ]
    return [*_ranks(facts), *boot, "--run-dir", str(again.path.resolve())]


def _ranks(facts: RunRecord) -> list[str]:
    # the first start: a resumed run had as many ranks, or it would not have been exact
    starts = facts.of_kind(EventKind.START)
    size = int(starts[0].get("world_size") or 1) if starts else 1
    if size == 1:
        return []
    # The boot file is what each rank runs: it finds the code of the tree before anything imports
    # dgc.
    return [*launcher.ranks_command(RankOptions(nproc_per_node=str(size))), "--no-python"]


def _folder(facts: RunRecord) -> Path:
    """Where the run was started, so that a relative data folder means the same; else here."""
    try:
        recorded = Path(str(read_json(facts.run.argv).get("cwd", ".")))
    except FileNotFoundError:
        return Path.cwd()
    # the folder may be gone; a relative data.dir is then looked for here
    return recorded if recorded.is_dir() else Path.cwd()


def _moved(facts: RunRecord, data_dir: Path) -> bytes:
    """The recipe of the record with its images in another folder.
    Raises IntegrityError where they are others.
    """
    name = str(facts.recipe.get("data.name"))
    if name not in IN_A_FOLDER:
        whence = (
            "are given by that code, by data.args"
            if trusted_code.is_own(name)
            else "come with the package and lie in no folder"
        )
        raise UsageError(
            f"--data-dir {data_dir}: the images of {facts.id} ({name}) {whence}: leave --data-dir"
            " out"
        )
    # changed as it stands: an override would leave out what it expects
    recipe = load_recipe(facts.run.recipe)
    data = recipe.data.model_copy(update={"dir": str(data_dir.absolute())})
    text = dump_recipe(recipe.model_copy(update={"data": data})).encode()
    found = query(
        "dgc.jobs.metadata",
        [f"--run-dir={facts.run.path}", f"--data-dir={data_dir.absolute()}", "--data-only"],
    )
    # the images' digest decides, not the folder's name
    if (now := found["data"].get("digest")) != (recorded := facts.data.get("digest")):
        raise IntegrityError(
            f"{data_dir.absolute()}: these are not the images of {facts.id}: their digest was"
            f" {str(recorded)[:12]}, is {str(now)[:12]}: nothing was run; name the folder that"
            " holds the recorded ones"
        )
    return text


def _forget_if_nothing_began(again: RunDir) -> None:
    """A repetition that could not start (its images are gone) is no run, as with `train`."""
    status = read_status(again)
    # A data folder that is gone is found in the first second, and leaves nothing worth a folder;
    # nor does any other refusal before the network was built.
    told = status.exit_code not in (None, ExitCode.FAILED, ExitCode.RANK_DIED)
    refused = status.exit_code in (ExitCode.USAGE, ExitCode.DATA)
    if not status.step and (refused or (told and not again.model.exists())):
        shutil.rmtree(again.path, ignore_errors=True)


def _new_run(facts: RunRecord, runs: Path, recipe: bytes) -> RunDir:
    name = str(facts.recipe["name"])
    again = create_run(runs, name)
    # before the status: a reader that finds the run can tell what it repeats
    atomic_write(again.recipe, recipe)
    write_json(again.file("rerun.json"), {"of": facts.id, "path": str(facts.run.path.resolve())})
    write_status(again, Status(state=State.QUEUED))
    return again


def _own_code() -> Path:
    return Path(str(run_in_tree.__file__)).resolve().parents[3]


def _code_of(
    facts: RunRecord, repository: Path | None, say: kernels.Say
) -> contextlib.AbstractContextManager[Path]:
    """The code of the record: from git; where that has it not,
    the installed code, if it is the same by its digest.
    """
    commit = facts.git.get("commit")
    _clear(facts.git, repository, say)
    # the given repository first, then where the record says, then what is near
    here = (
        repository
        or gitstate.repository_of(facts.git)
        or gitstate.toplevel(Path.cwd())
        or gitstate.toplevel(_own_code())
    )
    if commit and here and gitstate.has_commit(here, str(commit)):
        say(f"code: {_words(facts.git)}")
        return gitstate.recorded_code(facts.run, facts.git, here)
    # without the commit: an installed package of the same digest is the same code
    if facts.git.get("code") == provenance.code_digest():
        say("code: the installed one, whose digest is that of the record")
        return contextlib.nullcontext(_own_code())
    if installed := code_record.as_installed(facts.git):
        raise UsageError(
            f"{facts.id}: {installed}, and the code here is another"
            f" ({dgc.__version__}, code {provenance.code_digest()[:10]}): install that one, or"
            " --current-code uses this code"
        )
    places = (Path(str(facts.git.get("root") or ".")), Path.cwd())
    if commit and (trouble := next(filter(None, map(gitstate.trouble, places)), "")):
        raise UsageError(f"{facts.id}: its code cannot be restored: {trouble}")
    if commit and here is None:
        raise UsageError(
            f"{facts.id}: no git checkout here and the installed code is another one, so its code"
            " cannot be restored: run this inside the repository, or --current-code uses this code"
        )
    return gitstate.recorded_code(facts.run, facts.git, here or Path.cwd())


def _clear(git: Mapping[str, Any], repository: Path | None, say: kernels.Say) -> None:
    """Remove what killed reruns left in the repositories that this one may use."""
    recorded = Path(str(root)) if (root := git.get("root")) else None
    places = (
        repository,
        recorded and gitstate.toplevel(recorded),
        gitstate.toplevel(Path.cwd()),
        gitstate.toplevel(_own_code()),
    )
    for place in dict.fromkeys(places):
        for tree in leftovers.remove(place):
            say(f"removed {tree}, which a killed rerun left behind")


def _words(git: Mapping[str, Any]) -> str:
    """Commit, patch and files of a record."""
    copied = len(git.get("untracked") or ())
    parts = [f"commit {str(git['commit'])[:10]}", *(["patch"] if git.get("patch_sha256") else [])]
    return " + ".join([*parts, *([f"{copied:,} file{'s' * (copied != 1)}"] if copied else [])])


def _environment(facts: RunRecord) -> dict[str, str]:
    """Sums depend on the number of threads:
    the recorded one again, where the recipe does not fix it.

    The kernels are those that lie beside the code; PyTorch is held to the instruction sets that it
    was held to.
    """
    threads, limits = facts.env.get("threads"), facts.env.get("instruction_limits")
    # what the user set counts only where the record says nothing
    number = str(threads) if isinstance(threads, int) else os.environ.get("OMP_NUM_THREADS")
    env = launcher.child_environment(OMP_NUM_THREADS=number)
    left_out = (
        "DGC_NATIVE_ISA",
        "DGC_NATIVE_LIBRARY",
        *(provenance.INSTRUCTION_LIMITS if limits is not None else ()),
    )
    return {key: value for key, value in env.items() if key not in left_out} | (limits or {})
