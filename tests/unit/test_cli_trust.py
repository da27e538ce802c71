"""The commands of comparing and keeping, as a user types them: output in every form, exit codes,
one-line errors.
"""

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import pytest

from dgc.run.events import EventKind, encode_event
from dgc.run.files import read_json, write_json
from dgcctl.cli.main import main
from tests.unit.run_factory import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four finished runs, made once."""
    folder = tmp_path_factory.mktemp("made")
    for form in ("dgc", "dense"):
        for seed in (0, 1):
            name = f"2026010{seed}T000000Z-demo-{form[:2]}{seed}aaa"
            run = make_run(folder / name, f"model.form={form}", f"seed={seed}", "tags=[study]")
            write_json(run.git, {"commit": None})
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path


def run(capsys, *words, code=0):
    """(stdout, stderr) of a command line that must end with `code`."""
    assert main(list(words)) == code, capsys.readouterr()
    return capsys.readouterr()


# --- compare --------------------------------------------------------------------------------------


def test_compare_groups_by_what_differs_but_the_seed(folder, capsys):
    said = run(capsys, "runs", "compare", "-w", "tag:study", "--json").out
    groups = json.loads(said)["groups"]
    assert {group["model.form"] for group in groups} == {"dgc", "dense"}
    assert all(group["n"] == 2 and sorted(group["seeds"]) == [0, 1] for group in groups)
    assert groups[0]["top1_error"]["std"] == groups[0]["top1_error_std"] > 0


@pytest.mark.parametrize("flag", ["--md", "--latex", "--csv"])
def test_compare_prints_tables_for_papers_and_programs(folder, capsys, flag):
    said = run(capsys, "runs", "compare", "dg0aaa", "dg1aaa", "de0aaa", flag).out
    if flag == "--csv":
        rows = list(csv.DictReader(io.StringIO(said)))
        assert [row["n"] for row in rows] == ["2", "1"]
        assert float(rows[0]["top1_error_mean"]) > 0
        assert float(rows[0]["top1_error_std"]) > 0
        assert rows[1]["top1_error_std"] == ""
    else:
        assert ("± " in said) or (r"$\pm$" in said)
        assert "top-1 error" in said


def test_compare_without_a_run_is_a_usage_error(folder, capsys):
    said = run(capsys, "runs", "compare", code=2).err
    assert said.startswith("error: ")
    assert "name at least one run, or give a FILTER" in said


def test_compare_says_what_it_left_out(folder, capsys):
    make_run(
        folder / "runs" / "20260103T000000Z-demo-dg2aaa", "seed=2", "tags=[study]", state="stopped"
    )
    said = run(capsys, "runs", "compare", "-w", "tag:study")
    assert "20260103T000000Z-demo-dg2aaa: stopped, left out" in said.err


def test_compare_of_runs_on_other_data_says_so_in_one_line(folder, capsys):
    assert "the same data" not in run(capsys, "runs", "compare", "dg0aaa", "dg1aaa").err
    other = folder / "runs" / "20260101T000000Z-demo-dg1aaa" / "data.json"
    facts = read_json(other)
    write_json(other, {**facts, "name": "cifar10", "digest": "f" * 64})
    said = run(capsys, "runs", "compare", "dg0aaa", "dg1aaa").err
    assert said == (
        "warning: not the same data (fashion_mnist, cifar10): figures of different data do not"
        " compare\n"
    )
    write_json(other, {**facts, "digest": "f" * 64})
    said = run(capsys, "runs", "compare", "dg0aaa", "dg1aaa").err
    assert f", fashion_mnist {'f' * 12}): " in said


# --- diff -----------------------------------------------------------------------------------------


def test_diff_names_section_key_and_both_values(folder, capsys):
    rows = json.loads(run(capsys, "runs", "diff", "dg0aaa", "de0aaa", "--json").out)["differences"]
    assert {"section": "recipe", "key": "model.form", "a": "dgc", "b": "dense"} in rows
    assert {row["section"] for row in rows} == {"recipe", "result"}


def test_diff_shows_the_uncommitted_sources_when_asked(folder, capsys):
    (folder / "runs" / "20260100T000000Z-demo-de0aaa" / "git.patch").write_text("+changed = 1\n")
    said = run(capsys, "runs", "diff", "dg0aaa", "de0aaa")
    assert "uncommitted sources differ too" in said.err
    assert "++changed = 1" in run(capsys, "runs", "diff", "dg0aaa", "de0aaa", "--patch").out


def test_no_difference_is_said(folder, capsys):
    assert "no difference" in run(capsys, "runs", "diff", "dg0aaa", "dg0aaa").err


# --- verify, export, rm ---------------------------------------------------------------------------


def test_verify_ends_with_4_and_names_every_wrong_record(folder, capsys):
    assert "records agree" in run(capsys, "runs", "verify", "dg0aaa", "--quick").err
    path = folder / "runs" / "20260100T000000Z-demo-dg0aaa"
    write_json(path / "metrics.json", {**read_json(path / "metrics.json"), "top1_error": 1.0})
    said = run(capsys, "runs", "verify", "dg0aaa", "--quick", code=4)
    assert "records do not agree: metrics.json: top1_error" in said.err
    rows = json.loads(run(capsys, "runs", "verify", "dg0aaa", "--quick", "--json", code=4).out)[
        "checks"
    ]
    assert [row["name"] for row in rows if row["outcome"] == "mismatch"] == [
        "metrics.json: top1_error"
    ]


def test_export_prints_where_it_is(folder, capsys):
    assert run(capsys, "runs", "export", "dg0aaa", "kept").out == "kept\n"
    assert (folder / "kept" / "SHA256SUMS").is_file()
    assert "stands already" in run(capsys, "runs", "export", "dg0aaa", "kept", code=2).err
    assert (
        "should be best, all or none"
        in run(capsys, "runs", "export", "dg0aaa", "x", "--checkpoints", "x", code=2).err
    )


def test_rm_asks_and_without_a_terminal_wants_yes(folder, capsys):
    said = run(capsys, "runs", "rm", "dg0aaa", code=2).err
    assert "stdin is no terminal, so nobody can be asked: pass --yes to agree" in said
    assert "would move" in run(capsys, "runs", "rm", "dg0aaa", "--dry-run").err
    name = "20260100T000000Z-demo-dg0aaa"
    assert run(capsys, "runs", "rm", "dg0aaa", "--yes").out == f"{name}\n"
    assert not (folder / "runs" / name).exists()
    assert name not in run(capsys, "runs", "ls").out
    assert run(capsys, "runs", "restore").out == f"{name}\n"
    assert run(capsys, "runs", "restore", "dg0aaa").out == f"{name}\n"
    assert name in run(capsys, "runs", "ls").out
    run(capsys, "runs", "rm", "dg0aaa", "--yes")
    said = run(capsys, "runs", "restore", "--empty", code=2).err
    assert "delete 1 runs in" in said or "stdin is no terminal" in said
    assert "name no runs beside it" in run(capsys, "runs", "restore", "x", "--empty", code=2).err
    assert run(capsys, "runs", "restore", "--empty", "--yes").out == f"{name}\n"
    assert "nothing in" in run(capsys, "runs", "restore").err


def test_rm_for_good(folder, capsys):
    name = "20260100T000000Z-demo-dg0aaa"
    assert run(capsys, "runs", "rm", "dg0aaa", "--yes", "--for-good").out == f"{name}\n"
    assert "nothing in" in run(capsys, "runs", "restore").err


def test_tags_and_notes_afterwards(folder, capsys):
    name = "20260100T000000Z-demo-dg0aaa"
    recipe = (folder / "runs" / name / "recipe.yaml").read_bytes()
    said = run(capsys, "runs", "tag", "dg0aaa", "--add", "keep", "-a", "paper:2").out
    assert said == f"{name}  keep paper:2\n"
    assert run(capsys, "runs", "ls", "tag:paper:2", "--ids").out == f"{name}\n"
    assert run(capsys, "runs", "tag", "tag:keep", "-r", "keep").out == f"{name}  paper:2\n"
    run(capsys, "runs", "note", "dg0aaa", "the one \x1b[31m for the talk")
    assert "the one" in run(capsys, "runs", "show", "dg0aaa").out
    assert run(capsys, "runs", "ls", "note~TALK", "--ids").out == f"{name}\n"
    assert "\x1b[31m" not in run(capsys, "runs", "show", "dg0aaa").out
    assert (folder / "runs" / name / "recipe.yaml").read_bytes() == recipe
    assert "say --add TAG or --remove TAG" in run(capsys, "runs", "tag", "dg0aaa", code=2).err
    assert "tag 'a b': should be" in run(capsys, "runs", "tag", name, "-a", "a b", code=2).err
    run(capsys, "runs", "note", "dg0aaa", "")
    run(capsys, "runs", "tag", "dg0aaa", "-r", "paper:2")
    assert not (folder / "runs" / name / "labels.json").exists()


# --- sweep ----------------------------------------------------------------------------------------


def test_a_sweep_is_planned_without_being_run(folder, capsys):
    said = run(capsys, "sweep", "demo", "optim.lr=0.05,0.1", "seed=0..1", "--dry-run", "--json").out
    rows = json.loads(said)["trials"]
    assert rows[0]["values"] == "optim.lr=0.05 seed=0"
    assert len({row["digest"] for row in rows}) == 4
    assert not (folder / "runs" / "sweeps").exists()


def test_a_sweeps_table_shows_what_tells_trials_apart_and_its_file_all(folder, capsys):
    given = ("sweep", "demo", "optim.lr=0.05,0.1", "train.epochs=2", "--dry-run")
    lines = run(capsys, *given).out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["trial", "values"], ["0", "optim.lr=0.05"], ["1", "optim.lr=0.1"],
    ]  # fmt: skip
    assert "train.epochs" not in "".join(lines)
    rows = list(csv.DictReader(io.StringIO(run(capsys, *given, "--csv").out)))
    assert [row["values"] for row in rows] == [
        "optim.lr=0.05 train.epochs=2", "optim.lr=0.1 train.epochs=2",
    ]  # fmt: skip
    assert json.loads(run(capsys, *given, "--json").out)["trials"][0]["swept"] == "optim.lr=0.05"
    (_, only) = run(capsys, "sweep", "demo", "train.epochs=2", "--dry-run").out.splitlines()
    assert only.split()[:2] == ["0", "train.epochs=2"]


def test_mistakes_of_a_sweep_are_found_before_anything_is_written(folder, capsys):
    said = run(capsys, "sweep", "demo", "optim.lr=0.1,-1", "seed=0..2", "--dry-run", code=2).err
    assert said.count("error: ") == 1
    assert "override 'optim.lr=-1': optim.lr is -1" in said
    assert "name at least one key" in run(capsys, "sweep", "demo", code=2).err
    assert "no such sweep" in run(capsys, "sweep", "show", "nothing", code=2).err
    assert run(capsys, "sweep", "ls").out.startswith("sweep")


# --- rerun --against ------------------------------------------------------------------------------


def test_a_finished_repetition_is_compared_without_running(folder, capsys):
    make_run(
        folder / "runs" / "20260104T000000Z-demo-again0", "model.form=dgc", "seed=0", "tags=[study]"
    )
    said = run(capsys, "rerun", "dg0aaa", "--against", "again0")
    assert said.out.splitlines()[-1].startswith("bitwise equal (7 rows,")


def test_what_is_not_reproduced_ends_with_11_and_names_the_step(folder, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_KICK_STEP", "4")
    make_run(
        folder / "runs" / "20260104T000000Z-demo-again0", "model.form=dgc", "seed=0", "tags=[study]"
    )
    said = run(capsys, "rerun", "dg0aaa", "--against", "again0", code=11)
    assert "not reproduced; first difference at step 4: step.loss was" in said.err
    found = json.loads(run(capsys, "rerun", "dg0aaa", "--against", "again0", "--json", code=11).out)
    assert (found["verdict"], found["first_difference"]["step"]) == ("not reproduced", 4)
    said = run(capsys, "rerun", "dg0aaa", "--against", "again0", "--tolerance", "0.01")
    assert said.out.splitlines()[-1].startswith("within tolerance")


def test_one_value_changed_by_hand_in_the_log_is_found(folder, capsys):
    path = make_run(
        folder / "runs" / "20260104T000000Z-demo-again0", "model.form=dgc", "seed=0"
    ).events
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(
        index
        for index, line in enumerate(lines)
        if b'"step":5,' in line and b'"kind":"step"' in line
    )
    event = json.loads(lines[at])
    fields = {key: value for key, value in event.items() if key not in ("kind", "t", "crc")}
    lines[at] = encode_event(EventKind.STEP, {**fields, "lr": 0.1000001}, now=event["t"])
    path.write_bytes(b"".join(lines))
    said = run(capsys, "rerun", "dg0aaa", "--against", "again0", code=11)
    assert "first difference at step 5: step.lr was 0.1, is now 0.1000001" in said.err


def test_a_misspelt_metric_is_refused_before_anything_is_run(folder, capsys):
    before = sorted((folder / "runs").iterdir())
    said = run(capsys, "rerun", "dg0aaa", "--tolerance", "top1_eror=0.5", code=2).err
    assert (
        said == "error: --tolerance top1_eror: no metric of the run is called so (did you mean"
        " top1_error?)\n"
    )
    assert sorted((folder / "runs").iterdir()) == before


def test_a_tolerance_that_is_missed_says_by_how_much(folder, capsys):
    said = run(
        capsys, "rerun", "dg0aaa", "--against", "dg1aaa", "--tolerance", "top1_error=1e-6", code=11
    ).err
    assert "not reproduced; eval.top1_error is off by " in said
    assert "allowed are 1e-06" in said


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_sweep_is_not_called_by_a_path(folder, capsys, more):
    said = run(capsys, "sweep", "demo", "seed=0..1", "--name", "../x", *more, code=2).err
    assert said.startswith("error: --name '../x': should be a name of at most 64 letters, digits")
    assert said.count("\n") == 1
    assert not (folder / "runs" / "sweeps").exists()
    assert not (folder / "runs" / "x").exists()


def test_what_a_record_lacks_is_shown_with_the_run(folder, capsys):
    path = folder / "runs" / "20260100T000000Z-demo-dg0aaa" / "git.json"
    facts = {
        "commit": "1" * 40,
        "patch_sha256": None,
        "untracked": {"own.py": "0"},
        "left_out": {"x.py": "a reason"},
    }
    write_json(path, facts | {"restorable": False, "problem": "another reason"})
    lines = [
        " ".join(line.split()) for line in run(capsys, "runs", "show", "dg0aaa").out.splitlines()
    ]
    assert "code commit 1111111111 (dirty: 1 untracked file copied, 1 left out)" in lines
    assert "code lacks 1 file left out of the record: x.py (a reason)" in lines
    assert "code lacks cannot be restored: another reason" in lines


def test_an_installed_package_is_named_by_its_version_and_digest(folder, capsys):
    """It has no commit, and lacks nothing."""
    place = folder / "runs" / "20260100T000000Z-demo-dg0aaa"
    problem = "the package lies in no git checkout (/x/lib/python3.11/site-packages)"
    facts = {"commit": None, "restorable": False, "problem": problem, "version": "0.0.7"}
    write_json(place / "git.json", facts | {"code": "abcdef0123456789"})
    lines = run(capsys, "runs", "show", "dg0aaa").out.splitlines()
    (code,) = [line for line in lines if line.startswith("code")]
    assert code.endswith("dgcctl 0.0.7, as it is installed (code abcdef0123)")
    (said,) = run(capsys, "rerun", "dg0aaa", code=2).err.splitlines()[-1:]
    assert "dgcctl 0.0.7, as it is installed (code abcdef0123), and the code here is ano" in said
    assert said.endswith("install that one, or --current-code uses this code")


def test_the_table_of_a_rerun_has_a_row_for_each_metric_with_both_values(folder, capsys):
    make_run(
        folder / "runs" / "20260104T000000Z-demo-again0", "model.form=dgc", "seed=0", "tags=[study]"
    )
    metrics = read_json(folder / "runs" / "20260100T000000Z-demo-dg0aaa" / "metrics.json")
    lines = run(capsys, "rerun", "dg0aaa", "--against", "again0").out.splitlines()
    assert lines[0].split() == ["metric", "recorded", "repeated", "tolerance", "within"]
    table = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
    value = str(metrics["top1_error"])
    assert table["eval.top1_error"] == [value, value, "-", "yes"]
    other = run(capsys, "rerun", "dg0aaa", "--against", "dg1aaa", "--tolerance", "top1_error=1e-6",
                code=11).out.splitlines()  # fmt: skip
    row = next(line.split() for line in other if line.startswith("eval.top1_error"))
    assert row[1:4] == [value, row[2], "1e-06"]
    assert (row[2] != value, row[4]) == (True, "no")


# --- report, launch -------------------------------------------------------------------------------


def test_report_prints_the_files_it_wrote(folder, capsys):
    said = run(capsys, "report", "dg0aaa", "-o", "page.html", "--plots", "plots").out.split()
    assert said[0] == "page.html"
    assert (folder / "plots" / "curves.png").is_file()


def test_launch_prints_a_script(folder, capsys):
    assert run(capsys, "launch", "slurm", "demo", "--dry-run").out.startswith(
        "#!/usr/bin/env bash\n#SBATCH"
    )
    assert (
        "--time soon: should be"
        in run(capsys, "launch", "slurm", "demo", "--time", "soon", code=2).err
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "error: --output .: is a folder: name a file in it"),
        ("there", "error: --output there: is a folder: name a file in it"),
        (
            "none/page.html",
            "error: --output none/page.html: there is no folder none: make it first",
        ),
    ],
)
def test_a_report_that_cannot_be_written_there_is_refused_in_one_line(folder, capsys, given, said):
    (folder / "there").mkdir()
    assert run(capsys, "report", "dg0aaa", "-o", given, code=2).err.splitlines() == [said]
    assert not (folder / "none").exists()


def test_the_commands_that_follow_work_as_they_are_printed_also_for_a_run_elsewhere(folder, capsys):
    """By its id where that is found, else by its folder."""
    (folder / "else where").mkdir()
    shutil.move(folder / "runs" / "20260100T000000Z-demo-dg0aaa", folder / "else where")

    def following(*where):
        said = run(capsys, "runs", "show", "dg0aaa", *where).out
        return [
            line.removeprefix("next").strip() for line in said.splitlines() if line[:4] == "next"
        ]

    for place in (["--runs-dir", str(folder / "else where")], ["--runs-dir", "else where"]):
        for command in following(*place):
            words = shlex.split(command)[1:]
            named = next(word for word in words if "dg0aaa" in word)
            assert Path(named).exists(), command
            if words[:2] == ["runs", "tail"]:
                run(capsys, *words)
    shutil.move(folder / "else where" / "20260100T000000Z-demo-dg0aaa", folder / "runs")
    assert "dgcctl runs tail 20260100T000000Z-demo-dg0aaa" in following()


def test_a_rerun_says_how_many_differences_it_does_not_name(folder, capsys):
    again = make_run(
        folder / "runs" / "20260104T000000Z-demo-again0", "model.form=dgc", "seed=0", "tags=[study]"
    )
    facts = read_json(again.env)
    write_json(again.env, {**facts, "packages": {f"p{n}": "1" for n in range(11)}})
    said = run(capsys, "rerun", "dg0aaa", "--against", "again0").err.splitlines()
    assert sum(line.startswith("environment.packages.p") for line in said) <= 8
    assert any(line.endswith(": was absent, is now 1") for line in said)
    assert said[-1].endswith(
        "more: `dgcctl runs diff 20260100T000000Z-demo-dg0aaa 20260104T000000Z-demo-again0` lists"
        " all"
    )
