"""`dgcctl recipes`: list, show, check, compare and copy recipes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import RecipeError, UsageError
from dgc.recipe.load import (
    Recipe,
    diff_recipes,
    dump_recipe,
    find_recipe,
    load_recipe,
    recipes_dir,
    shipped_recipes,
)
from dgc.recipe.load import flatten as flat
from dgc.recipe.meanings import keys as every_key
from dgc.recipe.messages import did_you_mean
from dgc.run.names import checked_name
from dgc.run.trusted_code import is_own, package_of
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.lazy import App
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.targets import check_target
from dgcctl.core import new_recipe, numbers
from dgcctl.core.launch.query import query

app = App("List, show, check, compare, copy and write recipes.")


@app.command("ls")
@tabular
def ls(*, form: output.Form) -> None:
    """The recipes that come with the project."""
    rows = [_row(name, load_recipe(recipes_dir() / f"{name}.yaml")) for name in shipped_recipes()]
    columns = [
        TableColumn("name", whole=True),
        TableColumn("source", drop=1),
        TableColumn("data", whole=True),
        TableColumn("network", whole=True, drop=3),
        TableColumn("epochs", right=True, drop=4),
        TableColumn("batch", right=True, drop=5),
        TableColumn("expected", "expected top-1 error", numbers.percent, right=True, drop=2),
        TableColumn("title", drop=6),
    ]
    output.table("recipes", columns, rows, form)


@app.command()
@tabular
def keys(
    word: Annotated[
        str,
        typer.Argument(metavar="[WORD]", help="Only keys in whose name, values or meaning it is."),
    ] = "",
    *,
    form: output.Form,
) -> None:
    """What a recipe can say: each key with its values, its default, and what it means."""
    # by the name where that is enough: `lr` stands in many a meaning too
    found = [key for key in every_key() if word in key.name]
    plain = _letters(word)
    rows = [
        key._asdict()
        for key in found or every_key()
        if found or plain in _letters(f"{key.name} {key.allowed} {key.default} {key.meaning}")
    ]
    if not rows:
        names = [key.name for key in every_key()]
        raise UsageError(f"no key has {word!r} in it{did_you_mean(word, names)}")
    columns = [
        TableColumn("name", "key", whole=True),
        TableColumn("allowed", prose=True),
        TableColumn("default", show=lambda text: "(must be given)" if text is None else text),
        TableColumn("meaning", prose=True),
    ]
    output.table("keys", columns, rows, form)


def _letters(text: str) -> str:
    """`warmup` of warm-up, warm_up and Warm up."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _row(name: str, recipe: Recipe) -> dict[str, Any]:
    expected = {row.metric: row.value for row in recipe.expect}
    return {
        "name": name,
        "source": recipe.source,
        "data": recipe.data.name,
        "network": f"{recipe.model.name} ({recipe.model.form})",
        "epochs": recipe.train.epochs,
        "batch": recipe.train.batch_size,
        "expected": expected.get("top1_error"),
        "title": recipe.title,
        "tags": list(recipe.tags),
        "path": str(recipes_dir() / f"{name}.yaml"),
    }


@app.command()
@tabular
def show(
    recipe: options.RecipeArgument,
    overrides: options.Overrides = None,
    why: Annotated[
        bool, typer.Option("--why", help="Each value with where it comes from.")
    ] = False,
    *,
    form: output.Form,
) -> None:
    """The whole recipe, every default written out."""
    wanted = load_recipe(find_recipe(recipe), overrides or [])
    if form is output.Form.JSON:
        output.document(recipe=wanted.model_dump(), digest=wanted.digest(), why=_reasons(wanted))
    elif why or form is not output.Form.TEXT:
        columns = [TableColumn("key"), TableColumn("value"), TableColumn("why")]
        output.table("values", columns, _reasons(wanted), form)
    else:
        output.write(dump_recipe(wanted))


def _reasons(recipe: Recipe) -> list[dict[str, Any]]:
    """Each value and its origin; what the file gives no origin for is a default of the project or a
    plain fact.
    """
    rows = []
    for key, value in flat(recipe):
        if key not in ("origin", "expect"):
            rows.append({"key": key, "value": _word(value), "why": recipe.origin.get(key, "")})
    for row in recipe.expect:
        value = f"{row.value:g} ± {row.tolerance:g} %"
        rows.append({"key": f"expect.{row.metric}", "value": value, "why": row.source})
    return rows


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_word(item) for item in value) + "]"
    return str(value)


@app.command()
def validate(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", help="Recipe files, or names of shipped ones."),
    ],
    json: options.Json = False,
) -> None:
    """Check recipes; every problem of every file in one pass. Ends with 2 where there is one."""
    found: dict[str, list[str]] = {}
    for name in recipes:
        try:
            load_recipe(find_recipe(name))
            found[name] = []
        except RecipeError as error:
            found[name] = error.problems
    if json:
        output.document(
            recipes=[
                {"recipe": name, "ok": not bad, "problems": bad} for name, bad in found.items()
            ]
        )
    else:
        output.facts(
            [
                (name, "ok" if not bad else f"{len(bad)} problem{'s' * (len(bad) > 1)}")
                for name, bad in found.items()
            ]
        )
    problems = [line for bad in found.values() for line in bad]
    if problems:
        raise RecipeError(problems)


@app.command()
@tabular
def diff(
    first: options.RecipeArgument, second: options.RecipeArgument, *, form: output.Form
) -> None:
    """The values in which two recipes differ. RECIPE may also be the recipe.yaml of a run."""
    pairs = diff_recipes(load_recipe(find_recipe(first)), load_recipe(find_recipe(second)))
    rows = [
        {"key": key, "first": one, "second": two}
        for key, one, two in pairs
        if key not in ("origin",)
    ]
    if not rows and form is output.Form.TEXT:
        diagnostics.note("no difference")
        return
    columns = [
        TableColumn("key"),
        TableColumn("first", first, _word),
        TableColumn("second", second, _word),
    ]
    output.table("differences", columns, rows, form)


@app.command()
def new(
    data_dir: Annotated[
        Path,
        typer.Option(
            "--data-dir", metavar="FOLDER", help="Your images: {train,val}/<class>/<image>."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--network",
            metavar="NAME",
            help="dyresnet18, dydensenet, torchvision/NAME, timm/NAME,"
            " python:PACKAGE.MODULE:FUNCTION.",
        ),
    ] = "dyresnet18",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Where to [./FOLDER.yaml].")
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Write a recipe for a folder of your own images.

    Classes, size, mean and standard deviation are measured; the rest is a start to change by hand.
    """
    goal = out or Path(f"{new_recipe.name_of(data_dir)}.yaml")
    check_target("--out", goal)
    new_recipe.check_model(data_dir, model)
    if goal.exists():
        diagnostics.confirm(f"{goal} exists. Replace it?", yes=yes)
    found = query(
        "dgc.jobs.measure_images", [f"--data-dir={data_dir.absolute()}"], say=diagnostics.note
    )
    goal.write_text(new_recipe.text(data_dir, model, found), encoding="utf-8")
    output.line(str(goal))
    words = ["dgcctl", "train", str(goal)]
    words += ["--trust-code", package_of(model)] if is_own(model) else []
    diagnostics.note(
        f"{found['classes']} classes, {found['train']:,} + {found['val']:,} images of"
        f" {found['image_size']} x {found['image_size']}: `{shlex.join(words)}`"
    )


@app.command()
def cp(
    recipe: options.RecipeArgument,
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to [./NAME.yaml].")
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Copy a recipe, to change it by hand. The copy has the name of its file, and so have its
    runs.
    """
    source = find_recipe(recipe)
    goal = target or Path(source.name)
    goal = goal / source.name if goal.is_dir() else goal
    # without an ending no command would take it for a recipe's name
    goal = goal if goal.suffix else goal.with_name(f"{goal.name}.yaml")
    if goal.exists() and goal.resolve() == source.resolve():
        raise UsageError(
            f"{goal}: is that recipe itself: give another name, e.g. `dgcctl recipes cp {recipe}"
            " my.yaml`"
        )
    if not goal.parent.is_dir():
        raise UsageError(f"{goal}: there is no folder {goal.parent}: make it first")
    if goal.exists():
        diagnostics.confirm(f"{goal} exists. Replace it?", yes=yes)
    text = source.read_text(encoding="utf-8")
    if goal.stem != source.stem:
        name = checked_name(goal.stem, "recipes cp: the name")
        text = re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1)
    goal.write_text(text, encoding="utf-8")
    output.line(str(goal))
