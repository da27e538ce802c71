"""What a recipe is: loading with all errors in one pass, overrides, digest, difference, dump. No
torch.

    recipe = load_recipe(find_recipe("cifar10_h4"), ["optim.lr=0.05"])

The keys, ranges and defaults are in dgc.recipe.schema, the checks across fields in
dgc.recipe.checks.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, ValidationInfo, model_validator

from dgc import settings
from dgc.errors import OlderNameWarning, RecipeError, older_name
from dgc.recipe import messages, own_values, yaml12
from dgc.recipe.checks import run_checks
from dgc.recipe.dump import dump_tree
from dgc.recipe.schema import OLDER_KEYS, Sections, default_of

# These do not change what is computed: they are outside the digest, and a resumed run may change
# them.
_FREE = ("name", "title", "source", "tags", "origin", "expect", "checkpoint")
_FREE_KEYS = ("data.dir", "data.workers", "data.download", "train.log_every")
# Keys that came later: at their defaults they are no part of a digest, which stays what it was.
_LATER_KEYS = """
model.gate_factors model.args model.init model.init_sha256 model.reset model.convert
data.args data.rand_augment data.rand_augment_magnitude data.random_erasing
optim.name optim.betas optim.alpha optim.eps
optim.gate_weight_decay optim.norm_weight_decay optim.bias_weight_decay
optim.clip_grad_norm optim.label_smoothing optim.warmup_epochs optim.warmup_lr
train.tf32 train.mixup train.cutmix train.ema_decay
train.teacher train.teacher_sha256 train.teacher_temperature train.teacher_weight
"""
_LATER = {key: default_of(key) for key in _LATER_KEYS.split()}

RECORDED = "recorded"  # Recipe.model_validate(tree, context=RECORDED): types and ranges alone


class Recipe(Sections):
    """A whole recipe, valid by itself and across its fields."""

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        # what a run has computed fitted when it began, by the checks of its day
        if info.context == RECORDED:
            return self
        for _, problem in run_checks(dict(flatten(self))):
            raise ValueError(problem)
        return self

    def digest(self) -> str:
        """SHA-256 (hex) of what the recipe computes:
        labels, places and saving intervals do not change it.
        """
        semantic = dict(
            map(
                _as_digested,
                (
                    (key, value)
                    for key, value in flatten(self)
                    # a key that came later and says nothing new
                    # is left out: digests of older recipes stay
                    if is_semantic(key) and (key not in _LATER or value != _LATER[key])
                ),
            )
        )
        if semantic["train.backend"] == "auto":  # as it was before the key was there
            del semantic["train.backend"]
        text = json.dumps(semantic, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _as_digested(pair: tuple[str, Any]) -> tuple[str, Any]:
    """A key under the name that it has always had in digests,
    where its value could be said before.
    """
    key, value = pair
    if key == "train.memory_format" and value != "auto":
        # what `auto` means was not written down before, so it has no older name
        return "train.channels_last", value == "channels_last"
    return pair


def is_semantic(key: str) -> bool:
    """Whether a dotted key changes what is computed (and so the digest)."""
    return key not in _FREE_KEYS and key.split(".")[0] not in _FREE


def flatten(recipe: Sections) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every field;
    lists, `expect` and `origin` are values, None where nothing is given.
    """
    for key, value in recipe.model_dump().items():
        if isinstance(value, dict) and key != "origin":
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `dotted.key=value` overrides.
    Raises RecipeError with every problem, a line each.
    """
    path = Path(path)
    if path.name == "recipe.yaml" and not path.exists() and path.with_name("config.json").exists():
        raise RecipeError(
            f"{path.parent}: a script recorded this run (dgc.run.start), so it has no recipe: its"
            " script goes on with it, evaluates it and exports it (docs/scripts.md)"
        )
    text = yaml12.read_text(path)
    # what a run recorded is nobody's to change, and says what it always said
    recorded = path.with_name("status.json").exists()
    return parse_recipe(text, str(path), overrides, recorded=recorded)


def parse_recipe(
    text: str, name: str, overrides: Sequence[str] = (), *, recorded: bool = False
) -> Recipe:
    """Like load_recipe, from a text; `name` stands for the file in messages.
    `recorded`: of its older names nothing is said.
    """
    document = yaml12.load(text, name)
    if document.tree is None and not document.problems:
        raise RecipeError(
            f"{name}: the recipe is empty: `dgcctl recipes show demo` prints one to start from"
        )
    if not isinstance(document.tree, dict):
        problems = document.problems or [
            (1, "a recipe is a mapping of sections (name: ..., model: ..., ...)")
        ]
        raise RecipeError([f"{name}:{line}: {problem}" for line, problem in problems])
    # a copy: what the file said itself is compared with what it says after the overrides
    before = copy.deepcopy(document.tree)
    overridden = _apply(document, overrides)
    own_values.adapt(before, document.tree, overridden)
    # all problems at once, in the words of the file; the validation below finds none any more
    if wrong := messages.find(document, overridden, Sections):
        raise RecipeError(wrong)
    given = None if recorded else name
    for line in _older_names(document.tree, given, overridden):
        warnings.warn(line, OlderNameWarning, stacklevel=3)
    try:
        return Recipe.model_validate(document.tree)
    # messages.find has asked the same questions, so this is our own mistake
    except ValidationError as error:
        raise RecipeError(messages.in_words(name, error, Sections)) from error


def _older_names(
    tree: dict[str, Any], file: str | None, overridden: Mapping[str, str]
) -> Iterator[str]:
    """A line for each key of before; without a file of those of the command line alone."""
    train = tree.get("train")
    if not isinstance(train, dict):
        return
    for old, new in OLDER_KEYS.items():
        typed = f"train.{old}" in overridden
        if old in train and (typed or file is not None):
            yield ("" if typed else f"{file}: ") + older_name(f"train.{old}", f"train.{new}")


def _apply(document: yaml12.Document, overrides: Sequence[str]) -> dict[str, str]:
    """Put the overrides into the tree. Returns dotted key -> the override's text, for messages."""
    given: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            document.problems.append(
                (0, f"override {text!r}: write it as key=value, e.g. optim.lr=0.05")
            )
            continue
        parsed = yaml12.load(value, text)
        document.problems += [
            (0, f"override {text!r}: {problem}") for _, problem in parsed.problems
        ]
        given[key] = text
        _put(document.tree, key, parsed.tree)
        # a reason in the file is one for the value that was there
        origin = document.tree.get("origin")
        if isinstance(origin, dict) and key in origin:
            origin[key] = "given on the command line"
    return given


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        # an override may name a section that the file does not have
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    tree[last] = value


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out; it loads back identical."""
    return dump_tree(_resolved(recipe))


def _resolved(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.model_dump() | {"model": recipe.model.lines(), "optim": recipe.optim.lines()}
    # an empty mapping says nothing, and older releases do not know the key
    if not recipe.data.args:
        del tree["data"]["args"]
    return tree


def as_record(path: Path) -> dict[str, Any]:
    """What recipe.json says of a recipe file: the resolved recipe,
    and the digest of the file that it is of. Raises RecipeError.
    """
    text = yaml12.read_text(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"of_sha256": digest, "recipe": _resolved(parse_recipe(text, str(path)))}


def diff_recipes(
    first: Recipe, second: Recipe, *, semantic: bool = False
) -> list[tuple[str, Any, Any]]:
    """(dotted key, value in first, value in second) where they differ;
    `semantic` leaves out what computes the same.
    """
    right = dict(flatten(second))
    pairs = [(key, value, right[key]) for key, value in flatten(first)]
    return [pair for pair in pairs if pair[1] != pair[2] and (is_semantic(pair[0]) or not semantic)]


def check_world_size(recipe: Recipe, world_size: int) -> None:
    """Raise RecipeError where the global batch cannot be shared by so many processes."""
    batch, parts = recipe.train.batch_size, recipe.train.accumulate
    # each process needs whole parts, so that every image counts the same
    if batch % (world_size * parts):
        raise RecipeError(
            f"train.batch_size = {batch} cannot be shared by {world_size} processes with"
            f" train.accumulate = {parts}: it must be a multiple of {world_size * parts}"
        )
    if (recipe.train.mixup or recipe.train.cutmix) and batch % (2 * world_size):
        raise RecipeError(
            f"train.batch_size = {batch} gives {world_size} processes {batch // world_size} images"
            " each, and mixup and cutmix mix two by two: take a multiple of"
            f" {2 * world_size * parts}"
        )


# --- shipped recipes ------------------------------------------------------------------------------


def recipes_dir() -> Path:
    """The folder of the shipped recipes:
    inside the package where it is installed, beside it in a checkout.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the project, sorted."""
    return sorted(path.stem for path in recipes_dir().glob("*.yaml"))


def find_recipe(name_or_path: Path | str) -> Path:
    """The file of a recipe: a path as it is, or the bare name of a shipped one."""
    path = Path(name_or_path)
    if path.suffix == ".py":
        raise RecipeError(
            f"{name_or_path}: is a Python program and no recipe: start it with python; `with"
            " dgc.run.start(name, config) as run:` in it makes a run of it"
        )
    if path.exists():
        return path
    names = shipped_recipes()
    bare = path.name.removesuffix(".yaml")
    if path.parent.name in ("", "recipes") and bare in names:
        return recipes_dir() / f"{bare}.yaml"
    shipped = f"; shipped recipes: {', '.join(names)}"
    hint = _of_run(bare) or messages.did_you_mean(bare, names) or shipped
    raise RecipeError(f"{name_or_path}: no such recipe file{hint}")


def _of_run(name: str) -> str:
    """Where a run's recipe lies, for who gave its id (or the end of it) in a recipe's place."""
    try:
        found = sorted(settings.runs_dir().glob(f"*{glob.escape(name)}/recipe.yaml"))
    except (OSError, ValueError):  # a folder that may not be read, a name that is no name
        return ""
    return f": it is a run, whose recipe is {found[0]}" if name and len(found) == 1 else ""
