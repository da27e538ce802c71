"""A folder that may not be looked into: Path.is_file() raises there, before Python 3.14; each place
where a user names a file says it in one line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# tests may run as root, who may look everywhere: the child gives that right up
_AS_ORDINARY = (
    "import os\n"
    "from tests.faults.cli_zygote import drop_rights\n"
    "if os.geteuid() == 0:\n    drop_rights()\n"
)
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"")
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


def said(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _AS_ORDINARY + code],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("model.init", "from dgc.hub.initial import require_file; require_file(recipe)"),
        ("train.teacher", "from dgc.train.distillation import find_teacher; find_teacher(recipe)"),
    ],
)
def test_weights_that_a_recipe_names(override: str, code: str, closed: Path) -> None:
    file = closed / "weights.safetensors"
    done = said(
        "from dgc.errors import DgcError\n"
        "from dgc.recipe.load import find_recipe, load_recipe\n"
        f"recipe = load_recipe(find_recipe('demo'), ['{override}={file}'])\n"
        f"try:\n    {code}\n"
        "except DgcError as error:\n    print(int(error.exit_code), error)\n",
    )
    assert done.stdout == f"7 {file}: permission denied: check its owner and rights\n", done.stderr


def test_a_job_answers_in_one_line(closed: Path, tmp_path: Path) -> None:
    answer, run = tmp_path / "answer.json", closed / "run"
    words = ["--run-dir", str(run), "--json", str(answer), "x.png"]
    done = said(f"from dgc.jobs import predict\nraise SystemExit(predict.main({words}))")
    assert done.stderr == (
        f"error: {run / 'checkpoints'}: permission denied: check its owner and rights\n"
    )
    assert done.returncode == 7
    assert not answer.exists()


def test_a_folder_above_is_no_place_for_a_project_file(closed: Path) -> None:
    done = said(
        "from pathlib import Path\nfrom dgcctl.core import settings\n"
        f"print(settings.project_file(Path({str(closed)!r})))",
    )
    assert done.returncode == 0, done.stderr
    assert "Permission" not in done.stdout
