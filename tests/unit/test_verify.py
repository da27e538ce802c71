"""runs verify, export and rm: a record that was changed anywhere is named."""

import os
import subprocess
import tarfile

import orjson
import pytest

from dgc.errors import DataError, IntegrityError, LockedError, UsageError
from dgc.run.code_record import code_facts
from dgc.run.events import EventKind, encode_event
from dgc.run.files import file_digest, read_json, write_json
from dgc.run.process import process_start
from dgc.run.status import State, Status, write_status
from dgcctl.core.repro import gitstate, run_archive
from dgcctl.core.repro.verify import Outcome, verify
from tests.unit.run_factory import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "20260101T000000Z-demo-aaaaaa")


def outcomes(run, **options):
    return {check.name: check.outcome for check in verify(run, **options)}


def mismatches(run, **options):
    return [
        name for name, outcome in outcomes(run, **options).items() if outcome is Outcome.MISMATCH
    ]


def without_git(run):
    write_json(run.git, {"commit": None})
    return run


def test_an_untouched_run_agrees_in_every_record(run):
    found = outcomes(without_git(run))
    assert set(found.values()) == {Outcome.OK, Outcome.UNCHECKED}
    assert [name for name, outcome in found.items() if outcome is Outcome.UNCHECKED] == [
        "git commit"
    ]
    assert found["step-000006/model.safetensors"] is Outcome.OK


def edit_json(file, **changes):
    write_json(file, {**read_json(file), **changes})


def change_recipe(run):
    run.recipe.write_text(run.recipe.read_text().replace("lr: 0.1", "lr: 0.2"))


def change_checkpoint(run):
    path = run.checkpoints / "step-000006" / "model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")


def damage_log(run):
    data = bytearray(run.events.read_bytes())
    data[data.index(b'"loss":') + 8] ^= 1
    run.events.write_bytes(bytes(data))


def lose_a_step(run):
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(b"".join(line for line in lines if b'"step":3,' not in line))


def edit_manifest(run):
    path = run.checkpoints / "step-000005" / "MANIFEST.json"
    path.write_text(path.read_text().replace('"bytes":', '"bytes": 1'))


DAMAGE = {
    "recipe digest": change_recipe,
    "metrics.json: top1_error": lambda run: edit_json(run.metrics, top1_error=1.0),
    "metrics.json: macs_dense": lambda run: edit_json(
        run.model, macs={"dense": 1, "promised": 400, "executed": 420}
    ),
    "step-000006/model.safetensors": change_checkpoint,
    "step-000005/MANIFEST.json": edit_manifest,
    "event log: damaged lines": damage_log,
    "event log: steps without a gap": lose_a_step,
    "last.json": lambda run: edit_json(run.last, path="checkpoints/step-000099"),
    "uncommitted patch": lambda run: write_json(
        run.git, {"commit": None, "patch_sha256": "0" * 64}
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_each_changed_record_is_named(run, name):
    without_git(run)
    DAMAGE[name](run)
    assert {"uncommitted patch": "git.patch"}.get(name, name) in mismatches(run)


def test_a_log_that_lost_its_end_is_noticed_by_what_the_status_says(run):
    without_git(run)
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(b"".join(line for line in lines if b'"step":6,' not in line))
    assert "event log: last step" in mismatches(run)


def test_a_verdict_that_says_more_than_the_figures_is_named(run):
    without_git(run)
    value = read_json(run.metrics)["top1_error"]
    row = {
        "metric": "top1_error",
        "value": value,
        "expected": value - 9,
        "tolerance": 1.0,
        "source": "x",
        "passed": True,
    }
    write_json(run.verdict, {"verdicts": [row]})
    assert mismatches(run) == ["verdict: top1_error passed"]
    write_json(run.verdict, {"verdicts": [{**row, "passed": False}]})
    assert mismatches(run) == []


def test_untracked_sources_are_checked_by_their_digest(run):
    target = run.file("untracked") / "own.py"
    target.parent.mkdir()
    target.write_text("x = 1\n")
    write_json(run.git, {"commit": None, "untracked": {"own.py": "0" * 64}})
    assert mismatches(run) == ["untracked/own.py"]


def test_an_unknown_commit_is_a_mismatch(run, monkeypatch):
    import dgcctl.core.repro.gitstate as gitstate

    monkeypatch.setattr(gitstate, "has_commit", lambda folder, commit: False)
    assert mismatches(run) == ["git commit"]


def repository(folder):
    """A repository with one committed file; its commit."""
    words = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    folder.mkdir(exist_ok=True)
    subprocess.run([*words, "init", "-q"], check=True)
    (folder / "a.py").write_text("a = 1\n")
    subprocess.run([*words, "add", "a.py"], check=True)
    subprocess.run([*words, "commit", "-qm", "first"], check=True)
    return subprocess.run(
        [*words, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_another_repository_around_the_shell_says_nothing_about_a_commit(
    run, tmp_path, monkeypatch
):
    write_json(run.git, {"commit": "1" * 40, "root": str(tmp_path / "gone"), "untracked": {}})
    repository(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    checks = {check.name: check for check in verify(run)}
    assert checks["git commit"].outcome is Outcome.UNCHECKED
    assert checks["git commit"].detail == "run this inside the repository"


def test_a_patch_that_is_none_is_a_mismatch_although_its_digest_agrees(run, tmp_path):
    commit = repository(tmp_path / "code")
    run.file("git.patch").write_text("lost a.py\n")
    digest = file_digest(run.file("git.patch"))
    write_json(
        run.git,
        {"commit": commit, "root": str(tmp_path / "code"), "patch_sha256": digest, "untracked": {}},
    )
    assert mismatches(run) == ["git.patch applies to the commit"]
    facts = code_facts(tmp_path / "code")
    write_json(run.git, facts)
    run.file("git.patch").unlink()
    assert mismatches(run) == []


def test_what_was_never_kept_is_said_and_is_no_mismatch(run, tmp_path):
    repository(tmp_path / "code")
    (tmp_path / "code" / "b.py").symlink_to("a.py")
    facts = code_facts(tmp_path / "code")
    write_json(run.git, {**facts, "restorable": False, "problem": "a reason"})
    checks = {check.name: check for check in verify(run)}
    assert mismatches(run) == []
    assert (
        checks["files outside the record"].detail
        == "1 file left out of the record: b.py (a symbolic link)"
    )
    assert checks["code can be restored"].detail == "a reason"


def test_own_code_that_lies_elsewhere_now_is_absent_and_no_pipe_is_waited_for(run, tmp_path):
    without_git(run)
    (tmp_path / "mine").write_text("a file, where the package was")
    os.mkfifo(tmp_path / "pipe")
    package = {"place": str(tmp_path), "files": {"mine/nets.py": "1" * 64}}
    write_json(run.own_code, {"packages": {"mine": package}})
    (wrong,) = [check for check in verify(run) if check.outcome is Outcome.MISMATCH]
    assert (wrong.name, wrong.found) == ("own code, mine/nets.py", "absent")
    write_json(run.own_code, {"packages": {"mine": {**package, "files": {"pipe": "1" * 64}}}})
    with pytest.raises(IntegrityError, match="pipe: unreadable"):
        verify(run)


def test_data_and_model_are_compared_with_what_is_found_now(run):
    without_git(run)
    now = {
        "data": {"digest": "f" * 64},
        "model": {"parameters": 1234, "macs": {"dense": 1000, "promised": 400}},
    }
    assert mismatches(run, recompute=lambda _: now) == [
        "data digest",
        "MACs at the end of the schedule, executed",
    ]


def test_the_result_is_held_against_what_its_checkpoint_executes(run):
    without_git(run)
    now = {
        "data": read_json(run.data),
        "model": read_json(run.model),
        "result": {"step": 6, "macs": {"executed": 421}},
    }
    assert mismatches(run, recompute=lambda _: now) == ["metrics.json: macs_executed"]
    now["result"] = {"step": 6, "macs": {"executed": 420}}
    assert mismatches(run, recompute=lambda _: now) == []
    now["result"] = {"step": 6, "why_not": "the checkpoint of step 6 is not kept"}
    checks = {check.name: check for check in verify(run, recompute=lambda _: now)}
    assert checks["metrics.json: macs_executed"].outcome is Outcome.UNCHECKED
    assert checks["metrics.json: macs_executed"].detail == "the checkpoint of step 6 is not kept"


def test_absent_data_is_not_checked_and_not_called_wrong(run):
    without_git(run)

    def no_data(_):
        raise DataError("data/cifar10: no such folder")

    checks = {check.name: check for check in verify(run, recompute=no_data)}
    assert checks["data and model"].outcome is Outcome.UNCHECKED
    assert "data/cifar10: no such folder" in checks["data and model"].detail


# --- export ---------------------------------------------------------------------------------------


def test_an_export_holds_the_record_and_the_last_checkpoint_and_is_read_only(run, tmp_path):
    (run.file("control")).mkdir()
    (run.file("control") / "stop").touch()
    target = tmp_path / "out" / "kept"
    names = run_archive.export(run, target)
    assert "recipe.yaml" in names
    assert "control/stop" not in names
    assert [path.name for path in (target / "checkpoints").iterdir()] == ["step-000006"]
    assert run_archive.check_export(target) == []
    assert not (target / "recipe.yaml").stat().st_mode & 0o222
    assert (target / "events.jsonl").read_bytes() == run.events.read_bytes()
    assert verify(type(run)(target))


def test_a_changed_export_names_the_file(run, tmp_path):
    target = tmp_path / "kept"
    run_archive.export(run, target)
    (target / "metrics.json").chmod(0o644)
    (target / "metrics.json").write_text("{}")
    (target / "data.json").unlink()
    assert sorted(run_archive.check_export(target)) == ["data.json", "metrics.json"]
    with pytest.raises(IntegrityError, match="no export of a run"):
        run_archive.check_export(tmp_path)


def test_an_archive_has_the_same_files(run, tmp_path):
    names = run_archive.export(run, tmp_path / "run.tar.gz", checkpoints="none")
    with tarfile.open(tmp_path / "run.tar.gz") as archive:
        assert sorted(archive.getnames()) == sorted(
            f"{run.id}/{name}" for name in [*names, "SHA256SUMS"]
        )
    assert not any(name.startswith("checkpoints/") for name in names)


def test_what_stands_is_never_overwritten(run, tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(UsageError, match="stands already; an export is never changed"):
        run_archive.export(run, tmp_path / "kept")


def running(run):
    write_status(
        run, Status(state=State.RUNNING, pid=os.getpid(), start_token=process_start(os.getpid()))
    )
    return run


def test_a_running_run_is_neither_exported_nor_removed(run, tmp_path):
    running(run)
    with pytest.raises(UsageError, match=r"is running; export it when it is done"):
        run_archive.export(run, tmp_path / "kept")
    with pytest.raises(
        LockedError, match=r"is running \(process \d+ on .*\): stop it with `dgcctl runs stop"
    ):
        run_archive.remove(run)
    assert run.recipe.exists()


def test_removal_leaves_nothing(run, tmp_path):
    run_archive.remove(run)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_no_target(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        run_archive, "_sums", lambda *_: (_ for _ in ()).throw(OSError(28, "no space"))
    )
    with pytest.raises(OSError, match="no space"):
        run_archive.export(run, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    assert not any(path.name.startswith(".tmp-") for path in tmp_path.iterdir())


def test_the_log_says_what_the_metrics_say(run):
    """The check is able to fail: an evaluation that was appended later makes metrics.json stale."""
    without_git(run)
    row = {
        "epoch": 1,
        "step": 6,
        "split": "val",
        "top1_error": 3.0,
        "top5_error": 1.0,
        "loss": 0.5,
        "samples": 10,
    }
    with run.events.open("ab") as log:
        log.write(encode_event(EventKind.EVAL, row))
    assert {"metrics.json: top1_error", "metrics.json: loss"} <= set(mismatches(run))
    assert orjson.loads(run.metrics.read_bytes())["top1_error"] != 3.0


def test_code_that_is_not_the_recorded_one_is_named(run):
    """As where an installed copy hides the checkout that the record describes."""
    write_json(run.git, {"commit": None, "code": "a" * 64})
    state = run.checkpoints / "step-000006" / "state.json"
    write_json(state, {"stands_on": {"code": "a" * 64}})
    assert mismatches(run) == []
    write_json(state, {"stands_on": {"code": "b" * 64}})
    assert mismatches(run) == ["step-000006: code that ran"]


def test_a_commit_that_is_gone_is_no_mismatch_where_the_code_here_is_the_same(
    run, tmp_path, monkeypatch
):
    """`git gc` removes a commit that nothing names; the digest still says which code it was."""
    from dgc.run import provenance

    repository(tmp_path / "code")
    monkeypatch.setattr(gitstate, "repository_of", lambda record: None)
    facts = {"commit": "1" * 40, "root": str(tmp_path / "code"), "untracked": {}}
    write_json(run.git, {**facts, "code": provenance.code_digest()})
    found = {check.name: check for check in verify(run)}["git commit"]
    assert found.outcome is Outcome.UNCHECKED
    assert (
        found.detail
        == f"the commit is not in {tmp_path / 'code'}; the code here has the record's digest"
    )
    write_json(run.git, {**facts, "code": "a" * 64})
    found = {check.name: check for check in verify(run)}["git commit"]
    assert found.outcome is Outcome.MISMATCH
    assert found.found == f"not in {tmp_path / 'code'}, and the code here is another one"


def test_why_git_cannot_answer_is_said(run, tmp_path, monkeypatch):
    commit = repository(tmp_path / "code")
    write_json(run.git, {"commit": commit, "root": str(tmp_path / "code"), "untracked": {}})
    monkeypatch.setenv("PATH", "/nowhere")
    assert {check.name: check for check in verify(run)}[
        "git commit"
    ].detail == "git is not installed"
