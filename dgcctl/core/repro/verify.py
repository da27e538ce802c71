"""Recompute what a run recorded, and name each record that does not agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dgc.errors import DgcError
from dgc.run import checkout, code_record, provenance, trusted_code
from dgc.run.checkpoint_store import read_manifest
from dgc.run.events import EventKind, EventReader
from dgc.run.files import file_digest, read_bounded, read_json
from dgc.run.metrics import RESULTS
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.core.repro import gitstate
from dgcctl.core.runs.listing import end_of_schedule
from dgcctl.core.runs.record import RunRecord, read_record

Recompute = Callable[[RunDir], Mapping[str, Any]]


class Outcome(StrEnum):
    OK = "ok"
    MISMATCH = "mismatch"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Check:
    """One record held against its recomputation.
    `detail` says why where it could not be checked.
    """

    name: str
    outcome: Outcome
    recorded: Any = None
    found: Any = None
    detail: str = ""


def verify(run: RunDir, *, recompute: Recompute | None = None) -> list[Check]:
    """All checks of a run, in order.
    `recompute` loads data and model again (a process of its own: it needs torch).
    """
    facts = read_record(run)
    # from what is read in a moment to what takes long
    checks = [
        *_recipe(facts),
        *_code(facts),
        *_code_that_ran(facts),
        *_own_code(facts),
        *_log(facts),
        *_metrics(facts),
        *_verdict(facts),
        *_checkpoints(facts),
    ]
    again = recompute if not facts.by_script else None  # nobody knows how
    return [*checks, *_recomputed(facts, again)] if again else checks


def equal(name: str, recorded: Any, found: Any, detail: str = "") -> Check:
    if recorded is None:
        # an older release recorded less; what was not recorded cannot be wrong
        return Check(name, Outcome.UNCHECKED, recorded, found, detail or "nothing was recorded")
    return Check(
        name, Outcome.OK if recorded == found else Outcome.MISMATCH, recorded, found, detail
    )


def _recipe(facts: RunRecord) -> Iterator[Check]:
    from dgc.recipe.load import load_recipe

    if facts.by_script:
        yield Check("recipe digest", Outcome.UNCHECKED, detail="a script's run has no recipe")
        return
    starts = facts.of_kind(EventKind.START)
    recorded = starts[0].get("recipe") if starts else None
    yield equal("recipe digest", recorded, load_recipe(facts.run.recipe).digest())


def _code(facts: RunRecord) -> Iterator[Check]:
    commit = facts.git.get("commit")
    if commit is None:
        problem = str(facts.git.get("problem") or "the run was not started in a git checkout")
        yield Check("git commit", Outcome.UNCHECKED, detail=problem)
    elif (repository := gitstate.repository_of(facts.git)) is not None:
        # that it is here is the finding; whether it gives the code back is asked next
        yield equal("git commit", commit, commit)
        yield from _patch(facts, repository)
    else:
        yield _commit_that_is_not_here(facts, str(commit))
    yield from _not_in_the_record(facts)
    files = gitstate.recorded_files(facts.git)
    wrong = [
        check
        for name, recorded in files.items()
        if (check := equal(name, recorded, file_digest(facts.run.file(name)))).outcome
        is not Outcome.OK
    ]
    # one line where all agree, one a file where one does not
    yield from wrong or [equal("uncommitted sources", len(files), len(files), "files, by digest")]


def _commit_that_is_not_here(facts: RunRecord, commit: str) -> Check:
    """A commit can be lost (`git gc`, another clone)
    and the code be here all the same: its digest decides.
    """
    place = Path(str(facts.git.get("root") or Path.cwd()))
    if trouble := gitstate.trouble(place):
        return Check("git commit", Outcome.UNCHECKED, commit, detail=trouble)
    # any repository around the shell may lack it
    if gitstate.has_commit(place, commit) is not False:
        return Check(
            "git commit", Outcome.UNCHECKED, commit, detail="run this inside the repository"
        )
    if facts.git.get("code") == provenance.code_digest():
        same = f"the commit is not in {place}; the code here has the record's digest"
        return Check("git commit", Outcome.UNCHECKED, commit, detail=same)
    return equal("git commit", commit, f"not in {place}, and the code here is another one")


def _patch(facts: RunRecord, repository: Path) -> Iterator[Check]:
    path = facts.run.file("git.patch")
    if path.is_file():
        # in an index of its own: nothing of the checkout is touched
        problem = checkout.applies(repository, str(facts.git["commit"]), read_bounded(path))
        yield equal("git.patch applies to the commit", True, not problem, problem)


def _not_in_the_record(facts: RunRecord) -> Iterator[Check]:
    """What nobody can check, because it was never kept:
    said, so that `records agree` is not read as more.
    """
    if facts.git.get("commit") is not None and facts.git.get("restorable") is False:
        yield Check("code can be restored", Outcome.UNCHECKED, detail=str(facts.git.get("problem")))
    for sentence in code_record.left_out(facts.git):
        yield Check("files outside the record", Outcome.UNCHECKED, detail=sentence)


def _code_that_ran(facts: RunRecord) -> Iterator[Check]:
    """git.json is written by who starts a run;
    each checkpoint holds the digest of the code that really computed it.
    """
    for folder in sorted(facts.run.checkpoints.glob("step-*")):
        try:
            ran = read_json(folder / "state.json").get("stands_on", {}).get("code")
        except (OSError, DgcError):
            continue  # its digest is checked, and named, with the checkpoint's files
        if ran is not None:
            yield equal(f"{folder.name}: code that ran", facts.git.get("code"), ran)


def _own_code(facts: RunRecord) -> Iterator[Check]:
    """The user's own code that the recipe named:
    its files as they are now, each by its digest. None of it is run.
    """
    for name, recorded, found in trusted_code.held_against_now(facts.own_code):
        yield equal(f"own code, {name}", recorded, found)
    copies = facts.run.own_code_copies
    for name, recorded in trusted_code.kept_files(facts.own_code).items():
        yield equal(f"own_code/{name}", recorded, file_digest(copies / name))


def _log(facts: RunRecord) -> Iterator[Check]:
    reader = EventReader(facts.run.events)
    reader.poll()
    while reader.behind:
        reader.poll()
    damaged = ", ".join(map(str, reader.skipped[:5]))
    yield equal(
        "event log: damaged lines",
        0,
        len(reader.skipped),
        f"at offset {damaged}" if damaged else "",
    )
    steps = facts.of_kind(EventKind.STEP)
    # a step twice or not at all would be a log that was put together
    numbers = [row["step"] for row in steps]
    if facts.by_script:  # it logs which steps it likes
        return
    yield equal("event log: steps without a gap", True, numbers == list(range(1, len(numbers) + 1)))
    # only of a run that is done: any other may have been killed between two writes
    if facts.state is State.DONE:
        yield equal("event log: last step", facts.status.step, numbers[-1] if numbers else 0)


def _metrics(facts: RunRecord) -> Iterator[Check]:
    if not facts.metrics:
        return
    evals = facts.of_kind(EventKind.EVAL)
    last = evals[-1] if evals else {}
    for key in (*RESULTS, "epoch"):
        if key in facts.metrics:
            yield equal(f"metrics.json: {key}", facts.metrics[key], last.get(key))
    macs = end_of_schedule(facts.model)
    # these do not depend on how far the pruning was; see _executed
    for key in ("dense", "promised"):
        if f"macs_{key}" in facts.metrics:
            yield equal(f"metrics.json: macs_{key}", facts.metrics[f"macs_{key}"], macs.get(key))


def _verdict(facts: RunRecord) -> Iterator[Check]:
    for row in facts.verdict.get("verdicts", []):
        value = facts.metrics.get(row["metric"])
        yield equal(f"verdict: {row['metric']}", row["value"], value)
        within = value is not None and value <= row["expected"] + row["tolerance"]
        yield equal(f"verdict: {row['metric']} passed", row["passed"], within)


def _checkpoints(facts: RunRecord) -> Iterator[Check]:
    folders = sorted(facts.run.checkpoints.glob("step-*"))
    for folder in folders:
        yield from _checkpoint(folder)
    for pointer in (facts.run.last, facts.run.best):
        if pointer.is_file():
            path = str(read_json(pointer)["path"])
            # a pointer to what is not there would be followed by a resume
            yield equal(pointer.name, path, path if (facts.run.path / path).is_dir() else "absent")


def _checkpoint(folder: Path) -> Iterator[Check]:
    try:
        files = read_manifest(folder)["files"]
    except (DgcError, KeyError) as error:
        yield Check(f"{folder.name}/MANIFEST.json", Outcome.MISMATCH, "a manifest", str(error))
        return
    for name, entry in files.items():
        yield equal(f"{folder.name}/{name}", entry["sha256"], file_digest(folder / name))


def _recomputed(facts: RunRecord, recompute: Recompute) -> Iterator[Check]:
    try:
        # needs torch, and perhaps the images: what cannot be computed here is told as unchecked
        found = recompute(facts.run)
    except DgcError as error:
        yield Check("data and model", Outcome.UNCHECKED, detail=str(error))
        return
    if "data" in found:
        yield equal("data digest", facts.data.get("digest"), found["data"].get("digest"))
    model = found.get("model", {})
    yield equal("parameters", facts.model.get("parameters"), model.get("parameters"))
    for key in ("dense", "promised", "executed"):
        recorded, now = (end_of_schedule(record).get(key) for record in (facts.model, model))
        yield equal(f"MACs at the end of the schedule, {key}", recorded, now)
    yield from _executed(facts, found.get("result", {}))
    if "data_error" in found:
        yield Check(
            "data digest",
            Outcome.UNCHECKED,
            facts.data.get("digest"),
            detail=str(found["data_error"]),
        )


def _executed(facts: RunRecord, result: Mapping[str, Any]) -> Iterator[Check]:
    """The figure of the result against what the evaluated checkpoint executes."""
    recorded = facts.metrics.get("macs_executed")
    if recorded is None:
        return
    if "macs" in result:
        yield equal("metrics.json: macs_executed", recorded, result["macs"].get("executed"))
    else:
        why = str(result.get("why_not", "it was not counted again"))
        yield Check("metrics.json: macs_executed", Outcome.UNCHECKED, recorded, detail=why)
