"""Run a recorded run again: its code in a clean worktree, its recipe, seed and data; then hold both logs together."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgc import provenance, records
from dgc.errors import IntegrityError, UsageError
from dgc.fs import atomic_write
from dgc.kernel_sources import built_from, library_of
from dgc.records import Kind, RunDir, State
from dgcctl.core import circumstances, gitstate, kernels, launch, restored
from dgcctl.core.ask import silently
from dgcctl.core.divergence import Comparison, check_metrics, first_difference, tensor_differences
from dgcctl.core.facts import Facts, read_facts
from dgcctl.core.launch import Ranks
from dgcctl.core.rundiff import Difference, diff_runs
from dgcctl.core.worker import run_to_end

TRAINER = "dgc.train"
Agree = Callable[[Sequence[str]], None]


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
) -> RunDir:
    """Run `run` again into a new directory of `runs`, which is returned when it is done.

    `agree` is shown what differs here from the record and can change bits, before anything is trained; it raises where
    that will not do. Raises UsageError for a run that is not done or whose code is not here, and the trainer's error.
    """
    facts = read_facts(run)
    if facts.state is not State.DONE:
        raise UsageError(
            f"{run.id}: the run is {facts.state}, so there is no result to repeat: `dgcctl resume {run.id}`"
        )
    place = contextlib.nullcontext(_own_code()) if current_code else _code_of(facts, repository, say)
    with place as tree:
        env = _prepare(facts, tree, agree, say)
        again = _new_run(facts, runs)
        run_to_end(again, command(facts, again, tree, trainer), env)
    return again


def _prepare(facts: Facts, tree: Path, agree: Agree | None, say: kernels.Say) -> dict[str, str]:
    """The environment to train in, with the record's kernels and threads; `agree` hears what cannot be had."""
    found = kernels.Found(None, "")
    if circumstances.uses_kernels(facts) and tree != _own_code():
        found = kernels.put_into(tree, say)
        if found.library is not None:
            say(f"kernels: {found.words}")
    env = _environment(facts)
    if agree is not None:
        here = circumstances.examine(tree, _folder(facts), env)
        level = circumstances.level(facts, here)
        env |= {"DGC_NATIVE_ISA": level} if level else {}
        built = built_from(found.library or library_of(tree / "dgc") or Path())
        agree(circumstances.changes(facts, here, "" if found.library else found.words, built))
    return env


def compare(run: RunDir, again: RunDir, tolerances: Mapping[str, float]) -> Repetition:
    """Hold the repetition against the record: rows, tensors, final metrics. Raises IntegrityError for an empty log."""
    a, b = read_facts(run), read_facts(again)
    if not a.rows:
        raise IntegrityError(f"{run.events}: no metric rows, so nothing can be compared")
    found = Comparison(
        rows=len(a.rows),
        first=first_difference(a.rows, b.rows),
        tensors=tensor_differences(run, again),
        metrics=check_metrics(a.rows, b.rows, tolerances),
    )
    differing = [row for row in diff_runs(a, b).differences if row.section in ("data", "environment")]
    return Repetition(run, again, found, differing)


def command(facts: Facts, again: RunDir, tree: Path, trainer: str) -> list[str]:
    """The process that trains with the code of `tree`; as many ranks as the record says."""
    boot = [sys.executable, "-P", str(restored.__file__), str(tree), str(_folder(facts)), trainer]
    return [*_ranks(facts), *boot, "--run-dir", str(again.path.resolve())]


def _ranks(facts: Facts) -> list[str]:
    starts = facts.of_kind(Kind.START)
    size = int(starts[0].get("world_size") or 1) if starts else 1
    if size == 1:
        return []
    return [*launch.ranks_command(Ranks(nproc_per_node=str(size))), "--no-python"]


def _folder(facts: Facts) -> Path:
    """Where the run was started, so that a relative data folder means the same; else here."""
    try:
        recorded = Path(str(records.read_json(facts.run.argv).get("cwd", ".")))
    except FileNotFoundError:
        return Path.cwd()
    return recorded if recorded.is_dir() else Path.cwd()


def _new_run(facts: Facts, runs: Path) -> RunDir:
    name = str(facts.recipe["name"])
    again = records.create_run(runs, name)
    atomic_write(again.recipe, facts.run.recipe.read_bytes())
    records.write_json(again.file("rerun.json"), {"of": facts.id, "path": str(facts.run.path.resolve())})
    records.write_status(again, records.Status(state=State.QUEUED))
    return again


def _own_code() -> Path:
    return Path(str(restored.__file__)).resolve().parents[2]


def _code_of(facts: Facts, repository: Path | None, say: kernels.Say) -> contextlib.AbstractContextManager[Path]:
    """The code of the record: from git; where that has it not, the installed code, if it is the same by its digest."""
    commit = facts.git.get("commit")
    here = (
        repository
        or gitstate.repository_of(facts.git)
        or gitstate.toplevel(Path.cwd())
        or gitstate.toplevel(_own_code())
    )
    if commit and here and gitstate.has_commit(here, str(commit)):
        return gitstate.recorded_code(facts.run, facts.git, here)
    if facts.git.get("code") == provenance.code_digest():
        say("code: the installed one, whose digest is that of the record")
        return contextlib.nullcontext(_own_code())
    if commit and here is None:
        raise UsageError(
            f"{facts.id}: no git checkout here and the installed code is another one, so its code cannot be "
            "restored: run this inside the repository, or --current-code uses this code"
        )
    return gitstate.recorded_code(facts.run, facts.git, here or Path.cwd())


def _environment(facts: Facts) -> dict[str, str]:
    """Sums depend on the number of threads: the recorded one again, where the recipe does not fix it.

    The kernels are those that lie beside the code; PyTorch is held to the instruction sets that it was held to.
    """
    threads, limits = facts.env.get("threads"), facts.env.get("instruction_limits")
    number = str(threads) if isinstance(threads, int) else os.environ.get("OMP_NUM_THREADS")
    env = launch.child_environment(OMP_NUM_THREADS=number)
    left_out = ("DGC_NATIVE_ISA", "DGC_NATIVE_LIBRARY", *(provenance.INSTRUCTION_LIMITS if limits is not None else ()))
    return {key: value for key, value in env.items() if key not in left_out} | (limits or {})
