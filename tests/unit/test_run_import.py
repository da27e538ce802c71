"""runs import: exported runs and other runs folders come in whole, unchanged, and once."""

import io
import json
import tarfile
import zipfile

import pytest

from dgc.run.files import file_digest
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.cli.main import main
from tests.unit.run_factory import make_run

FIRST = "20260101T000000Z-demo-aa0001"
SECOND = "20260102T000000Z-demo-aa0002"


@pytest.fixture
def there(tmp_path):
    """Another runs folder with two runs."""
    make_run(tmp_path / "there" / FIRST, "seed=1")
    make_run(tmp_path / "there" / SECOND, "seed=2")
    return tmp_path / "there"


@pytest.fixture
def call(tmp_path, capsys):
    def called(*words, code=0, at="here"):
        assert main([*map(str, words), "--runs-dir", str(tmp_path / at)]) == code
        return capsys.readouterr()

    return called


def test_the_folder_above_the_runs_will_do(there, call, tmp_path):
    (tmp_path / "w").mkdir()
    there.rename(tmp_path / "w" / "runs")
    said = call("runs", "import", tmp_path / "w").out.splitlines()
    assert said == [f"{FIRST}  imported", f"{SECOND}  imported"]


def records(run):
    return {
        str(path.relative_to(run)): file_digest(path)
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def test_a_runs_folder_comes_in_and_a_second_time_nothing_does(there, call, tmp_path):
    said = call("runs", "import", there).out.splitlines()
    assert said == [f"{FIRST}  imported", f"{SECOND}  imported"]
    assert records(tmp_path / "here" / FIRST) == records(there / FIRST)
    again = json.loads(call("runs", "import", there, "--json").out)
    assert [row["outcome"] for row in again["runs"]] == ["already here"] * 2
    assert call("runs", "ls", "--ids").out.split() == [SECOND, FIRST]


@pytest.mark.parametrize("target", ["kept", "kept.zip", "kept.tar.gz"])
def test_an_export_of_any_kind_comes_in_once_whatever_its_name_is(there, call, tmp_path, target):
    call("runs", "export", FIRST, "-o", tmp_path / target, "--checkpoints", "all", at="there")
    name = call("runs", "import", tmp_path / target).out.split()[0]
    came = RunDir(tmp_path / "here" / name)
    assert records(came.path) == records(there / FIRST)
    # an archive holds the id; a folder of another name gets one that begins as ids do
    assert name == FIRST or name.startswith("20010909T014640Z-demo-")
    (came.path / "labels.json").write_text("{}")  # can be tagged: nothing in it is read-only
    assert call("runs", "import", there / FIRST).out == f"{name}  already here\n"
    assert not list((tmp_path / "here").glob(".*"))


def test_what_was_changed_since_its_export_is_refused_and_leaves_nothing(there, call, tmp_path):
    call("runs", "export", FIRST, tmp_path / "kept", at="there")
    metrics = tmp_path / "kept" / "metrics.json"
    metrics.chmod(0o644)
    metrics.write_text(metrics.read_text().replace("top1", "top9"))
    said = call("runs", "import", tmp_path / "kept", code=4).err
    assert "changed since it was exported: metrics.json" in said
    assert list((tmp_path / "here").iterdir()) == []


def _tar(path, name, link=""):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        entry.size = 0 if link else 1
        archive.addfile(entry, None if link else io.BytesIO(b"x"))


@pytest.mark.parametrize(
    ("name", "link"), [("../out", ""), ("/tmp/out", ""), ("r/x", "/etc/passwd")]
)
def test_no_archive_writes_elsewhere_or_makes_a_link(call, tmp_path, name, link):
    _tar(tmp_path / "bad.tar", name, link)
    assert "is no file of a run" in call("runs", "import", tmp_path / "bad.tar", code=4).err
    if not link:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, "x")
        assert "is no file of a run" in call("runs", "import", tmp_path / "bad.zip", code=4).err
    assert list((tmp_path / "here").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_what_holds_no_run_or_another_one_of_that_name_gets_one_line(there, call, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04")
    assert "no run is in it" in call("runs", "import", tmp_path / "empty", code=2).err
    assert "no such file" in call("runs", "import", tmp_path / "absent", code=2).err
    assert "no archive of a run" in call("runs", "import", tmp_path / "notes.txt", code=2).err
    assert "cannot be unpacked" in call("runs", "import", tmp_path / "torn.zip", code=4).err
    make_run(tmp_path / "here" / FIRST, "seed=7", "train.epochs=2")
    with (tmp_path / "here" / FIRST / "events.jsonl").open("a") as log:
        log.write("x\n")
    assert "another run has that name" in call("runs", "import", there / FIRST, code=2).err


def test_a_run_that_still_trains_is_not_imported(call, tmp_path):
    make_run(tmp_path / "there" / FIRST, state=State.QUEUED)
    assert "is queued" in call("runs", "import", tmp_path / "there", code=2).err


def test_verify_and_export_take_a_filter(there, call, tmp_path):
    said = call("runs", "export", "seed=1,2", tmp_path / "kept", at="there")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [FIRST, SECOND]
    assert said.out.split() == [str(tmp_path / "kept" / one) for one in (FIRST, SECOND)]
    assert (
        "into a folder"
        in call("runs", "export", "seed=1,2", "-o", tmp_path / "x.zip", code=2, at="there").err
    )
    assert "no run fits" in call("runs", "export", "seed=3", tmp_path / "y", code=2, at="there").err
    assert "where to" in call("runs", "export", FIRST, code=2, at="there").err
    # of made-up runs the commit is none, and each run is named with what does not agree
    said = call("runs", "verify", "seed=1,2", "--quick", "--json", code=4, at="there")
    assert {row["run"] for row in json.loads(said.out)["checks"]} == {FIRST, SECOND}
    assert said.err.count("records do not agree: git commit") == 2
    metrics = json.loads((there / SECOND / "metrics.json").read_text())
    (there / SECOND / "metrics.json").write_text(json.dumps({**metrics, "top1_error": 1.0}))
    said = call("runs", "verify", "seed=1,2", "--quick", code=4, at="there")
    assert said.err.index(SECOND) < said.err.index("metrics.json: top1_error")
    assert "run  " in said.out.splitlines()[0]
