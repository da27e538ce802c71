"""Lines that new users met: each says what is wrong once, in plain words, and where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dgc.errors import RecipeError
from dgc.recipe import messages
from dgc.recipe.load import find_recipe, load_recipe
from dgc.recipe.schema import Sections
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train import __main__ as trainer
from dgcctl.cli.main import main
from dgcctl.cli.runs import event_line
from dgcctl.tui.actions import Trainers
from tests.unit.run_factory import make_run
from tests.unit.test_predict import photo

WRONG = (
    *("-1", "0", "1.5", "1e30", "9223372036854775808", ".nan", "-.inf", "x", "''", "true", "null"),
    *("[]", "{}", "[-1]", "[1, 2]", "[a]", "[[1]]", "{a: 1}", "[{}]", "[{metric: 3}]"),
)
FOREIGN = re.compile(
    r"value error|input should|valid(ation)? error|assertion|pydantic|\[type=", re.IGNORECASE
)


@pytest.mark.parametrize("key", list(messages._keys(Sections)))
def test_no_kind_of_wrong_value_is_told_in_the_words_of_the_library(key: str) -> None:
    refused = 0
    for value in WRONG:
        try:
            load_recipe(find_recipe("demo"), [f"{key}={value}"])
        except RecipeError as error:
            refused += 1
            for line in error.problems:
                assert not FOREIGN.search(line), line
    assert refused


def test_what_only_the_schema_finds_is_told_in_plain_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "find", lambda *_: [])
    for override, wanted in (
        ("optim.lr=-1", "optim.lr is -1"),
        ("train.epochs=x", 'train.epochs is "x" (a text)'),
        ("model.heads=5", "heads"),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(find_recipe("demo"), [override])
        assert wanted in str(caught.value)
        assert not FOREIGN.search(str(caught.value))


def test_report_without_runs_says_once_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "r.html"
    assert main(["report", "--runs-dir", str(tmp_path), "-o", str(target)]) == 2
    said = capsys.readouterr().err
    assert said.count("see `") == 1, said
    assert not target.exists()


def test_an_end_without_a_reason_shows_none() -> None:
    event = {"kind": "end", "t": 0, "state": "done", "reason": "", "step": 6}
    assert event_line(event).endswith("state done  step 6")


def test_an_unexpected_error_names_file_and_line_of_our_innermost_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(TypeError) as caught:
        load_recipe(3)  # type: ignore[arg-type]
    assert trainer.unexpected(run, caught.value, 1) == 1
    said = capsys.readouterr().err
    assert re.match(r"error: dgc/recipe/load\.py:\d+: TypeError: ", said), said
    assert "Traceback" in run.log.read_text()


def test_a_folder_for_the_embedded_images_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "runs" / "20260101T000000Z-demo-aaa111")
    words = ["rerun", str(run.path), "--data-dir", str(tmp_path), "--current-code"]
    assert main([*words, "--allow-change", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --data-dir {tmp_path}: the images of {run.id} (fashion_mnist) come with the package"
        " and lie in no folder: leave --data-dir out"
    )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.id]


def test_a_run_of_the_dashboard_records_recipe_file_and_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainers, "_launch", lambda *_: None)
    run = Trainers().start(find_recipe("demo"), tmp_path, ["seed=3"])
    told = read_json(run.argv)
    assert (told["recipe_file"], told["overrides"]) == (str(find_recipe("demo")), ["seed=3"])


def test_all_bad_images_are_named_and_the_others_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    from dgc.models import create_model
    from dgc.recipe.load import dump_recipe

    torch.manual_seed(0)
    recipe = load_recipe(find_recipe("demo"))
    weights, file = tmp_path / "w.safetensors", tmp_path / "r.yaml"
    save_file(create_model(recipe.model.name, **recipe.model.kwargs()).state_dict(), weights)
    file.write_text(dump_recipe(recipe))
    good, page = photo(tmp_path / "a.jpg", 40, 40), tmp_path / "bad.jpg"
    page.write_bytes(b"<html>")
    absent = tmp_path / "absent.jpg"
    words = ["predict", "--checkpoint", str(weights), "--recipe", str(file)]
    assert main([*words, "--json", str(page), str(good), str(absent)]) == 3
    told = capsys.readouterr()
    assert [image["path"] for image in json.loads(told.out)["images"]] == [str(good)]
    assert f"warning: {page}: an HTML page, not an image" in told.err
    assert f"warning: {absent}: cannot be read" in told.err
    assert told.err.endswith("error: 2 of 3 images could not be read (named above)\n")
    assert main([*words, str(tmp_path)]) == 3
    wanted = f"error: {tmp_path}: a folder, and no image: name the images in it\n"
    assert capsys.readouterr().err.endswith(wanted)
    assert main([*words, str(page), str(good)]) == 3
    told = capsys.readouterr()
    assert told.out.startswith(f"{good}\n")
    assert f"error: {page}: an HTML page, not an image" in told.err
