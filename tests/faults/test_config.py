"""Rows 1 to 7: recipes that cannot be used, and every line that a user then reads."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dgc.errors import ExitCode, RecipeError
from dgc.recipe import yaml12
from dgc.recipe.load import dump_recipe, find_recipe, load_recipe, parse_recipe, shipped_recipes
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
DEMO = find_recipe("demo").read_text()


def line_of(text, fragment):
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


def problems(text, *overrides):
    """The error lines of a recipe; its exit code is that of a recipe."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "c10.yaml", overrides)
    assert caught.value.exit_code is ExitCode.USAGE == 2
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def changed(old, new):
    assert DEMO.count(old) == 1, old
    return DEMO.replace(old, new)


def at(fragment, text):
    return f"c10.yaml:{line_of(text, fragment)}: "


# --- row 1 ----------------------------------------------------------------------------------------


def test_unknown_keys_are_all_listed_with_the_nearest_ones(fault_table):
    text = (
        changed("  epochs: ", "  epoch: 3\n  lr: 7\n  epochs: ").replace(
            "  heads: 4\n", "  headz: 4\n"
        )
        + "zzz: 1\n"
    )
    with (
        fault_table.case(1, "unknown keys: all of them, each with the nearest") as case,
        case.run(),
    ):
        assert problems(text) == [
            at("headz", text) + "unknown field model.headz (did you mean model.heads?)",
            at("epoch: 3", text) + "unknown field train.epoch (did you mean train.epochs?)",
            at("lr: 7", text) + "unknown field train.lr (did you mean optim.lr?)",
            at("zzz", text) + "unknown field zzz",
        ]


def test_unknown_and_malformed_overrides(fault_table):
    with fault_table.case(1, "unknown key in an override") as case:
        for override, said in (
            (
                "train.epoch=3",
                "override 'train.epoch=3': unknown field train.epoch (did you mean train.epochs?)",
            ),
            ("optim.lr", "override 'optim.lr': write it as key=value, e.g. optim.lr=0.05"),
            ("zzz=1", "override 'zzz=1': unknown field zzz"),
            ("optim.foo.bar=1", "override 'optim.foo.bar=1': unknown field optim.foo"),
        ):
            with case.run():
                (line,) = problems(DEMO, override)
                assert line.startswith(f"c10.yaml: {said}")


def test_an_origin_of_no_field(fault_table):
    text = changed('  optim.lr: "paper"', '  optim.lrr: "paper"')
    with fault_table.case(1, "origin of a field that is none") as case, case.run():
        assert problems(text) == [
            at("optim.lrr", text)
            + "origin names optim.lrr, which is no field (did you mean optim.lr?)"
        ]


# --- row 2 ----------------------------------------------------------------------------------------


def test_duplicate_key_names_both_lines(fault_table):
    text = changed("  gate_l1: 1e-5\n", "  gate_l1: 1e-5\n  lr: 0.2\n")
    first, second = (
        number for number, line in enumerate(text.splitlines(), 1) if line.startswith("  lr: ")
    )
    with fault_table.case(2, "duplicate key") as case:
        with case.run():
            assert problems(text) == [
                f"c10.yaml:{second}: duplicate key optim.lr (first on line {first}): keep one of"
                " the two"
            ]
        with case.run():
            section = DEMO + "model: {name: dyresnet18}\n"
            (line,) = problems(section)
            assert line.endswith(
                f"duplicate key model (first on line {line_of(DEMO, 'model:')}): keep one of"
                " the two"
            )


# --- row 3 ----------------------------------------------------------------------------------------

WRONG = [
    ("optim.lr", '"0.1"', '"0.1" (a text)', "a number > 0"),
    ("optim.lr", ".nan", "nan (a number with a point)", "a number > 0"),
    ("optim.lr", ".inf", "inf (a number with a point)", "a number > 0"),
    ("optim.lr", "1e999", "inf (a number with a point)", "a number > 0"),
    ("optim.lr", "-1", "-1 (a whole number)", "a number > 0"),
    ("optim.lr", "true", "true", "a number > 0"),
    ("optim.lr", "null", "null", "a number > 0"),
    ("optim.lr", "[0.1]", "a list of 1", "a number > 0"),
    ("optim.momentum", "1.0", "1.0 (a number with a point)", "a number >= 0 and < 1"),
    ("train.epochs", "true", "true", "a whole number > 0"),
    ("train.epochs", "3.0", "3.0 (a number with a point)", "a whole number > 0"),
    ("train.epochs", "0", "0 (a whole number)", "a whole number > 0"),
    ("train.max_steps", "x", '"x" (a text)', "a whole number > 0 or null"),
    ("train.amp", "fp8", '"fp8" (a text)', "off or bf16 or fp16"),
    ("model.gate_factor", "1.5", "1.5 (a number with a point)", "a number > 0 and <= 1"),
    ("model.gate_factor", "0", "0 (a whole number)", "a number > 0 and <= 1"),
    ("optim.nesterov", "yes", '"yes" (a text)', "true or false"),
    ("optim.nesterov", "1", "1 (a whole number)", "true or false"),
    ("data.std", "[1, 1, 0]", "0 (a whole number)", "a list of 3 numbers > 0"),
    ("seed", "-1", "-1 (a whole number)", "a whole number >= 0 and < 9223372036854775808"),
    (
        "checkpoint",
        "3",
        "3 (a whole number)",
        "a mapping with every_seconds, every_steps, keep_last, keep_best",
    ),
]


@pytest.mark.parametrize(("key", "value", "shown", "allowed"), WRONG)
def test_wrong_values_name_field_value_and_range(key, value, shown, allowed, fault_table):
    with (
        fault_table.case(3, "wrong type or range: field, value, what is allowed") as case,
        case.run(),
    ):
        (line,) = problems(DEMO, f"{key}={value}")
        field = "data.std[2]" if key == "data.std" else key
        assert (
            line
            == f"c10.yaml: override {f'{key}={value}'!r}: {field} is {shown}; allowed: {allowed}"
        )


def test_wrong_values_in_the_file_are_all_found_in_one_pass(fault_table):
    text = (
        changed("  lr: 0.1\n", '  lr: "0.1"\n')
        .replace("  gate_factor: 0.25\n", "  gate_factor: 1.5\n")
        .replace("  nesterov: true\n", "  nesterov: no\n")
        .replace("  batch_size: 64\n", "")
    )
    with (
        fault_table.case(3, "several wrong values: all in one pass, with their lines") as case,
        case.run(),
    ):
        assert problems(text) == [
            at("gate_factor", text)
            + "model.gate_factor is 1.5 (a number with a point); allowed: a number > 0 and <= 1",
            at("lr:", text) + 'optim.lr is "0.1" (a text); allowed: a number > 0',
            at("nesterov", text) + 'optim.nesterov is "no" (a text); allowed: true or false',
            at("train:", text) + "train.batch_size is missing; allowed: a whole number > 0",
        ]


# --- row 4 ----------------------------------------------------------------------------------------

CORE_SCHEMA = {
    "1e-3": 0.001,
    "1E+2": 100.0,
    "no": "no",
    "off": "off",
    "y": "y",
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "1:30": "1:30",
    "14-14-14": "14-14-14",
    "1_000": "1_000",
    "2020-01-01": "2020-01-01",
    "0b1": "0b1",
    "+.5": 0.5,
    "True": True,
    "~": None,
    "": None,
    "'1'": "1",
    "! 1": "1",
    "=": "=",
    "<<": "<<",
}


@pytest.mark.parametrize("text", CORE_SCHEMA)
def test_yaml_1_2_scalars(text, fault_table):
    with fault_table.case(4, "YAML 1.1 traps have their YAML 1.2 values") as case, case.run():
        value = yaml12.load(f"a: {text}\n", "x").tree["a"]
        assert (type(value), value) == (type(CORE_SCHEMA[text]), CORE_SCHEMA[text])


@pytest.mark.parametrize("name", shipped_recipes())
def test_round_trip(name, fault_table):
    with (
        fault_table.case(4, "shipped recipe, written out and read again: identical") as case,
        case.run(),
    ):
        recipe = load_recipe(find_recipe(name))
        text = dump_recipe(recipe)
        assert dump_recipe(parse_recipe(text, "x")) == text


# --- row 5 ----------------------------------------------------------------------------------------

TAGS = [
    ("!!python/object/apply:os.system ['touch CANARY']", "tag !!python/object/apply:os.system"),
    ("!!python/name:os.system ''", "tag !!python/name:os.system"),
    ("!include http://example.org/x.yaml", "tag !include"),
    ("!!binary aGk=", "tag !!binary"),
    ("!<tag:example.org,2020:x> 1", "tag tag:example.org,2020:x"),
]


@pytest.mark.parametrize(("value", "named"), TAGS)
def test_tags_are_refused_by_name_and_line(value, named, tmp_path, monkeypatch, fault_table):
    monkeypatch.chdir(tmp_path)
    text = changed('title: "Fashion', f'zz: {value}\ntitle: "Fashion')
    with fault_table.case(5, "tags and remote merges refused, canary absent") as case, case.run():
        lines = problems(text)
        assert (
            lines[0]
            == f"c10.yaml:2: {named}: tags are not allowed, a recipe holds plain values only"
        )
        assert list(tmp_path.iterdir()) == []


def test_merge_of_a_remote_file(fault_table):
    text = DEMO + "<<: !include http://example.org/base.yaml\n"
    with fault_table.case(5, "tags and remote merges refused, canary absent") as case, case.run():
        lines = problems(text)
        assert any("tag !include: tags are not allowed" in line for line in lines)
        assert any("unknown field <<" in line for line in lines)


def test_anchors_and_aliases(fault_table):
    text = changed("  lr: 0.1\n", "  lr: &rate 0.1\n  gamma: *rate\n")
    with fault_table.case(6, "anchors and aliases refused") as case, case.run():
        lines = problems(text)
        assert (
            lines[0]
            == at("&rate", text)
            + "anchor &rate: anchors are not allowed, write the value where it is used"
        )
        assert (
            lines[1]
            == at("*rate", text) + "alias *rate: aliases are not allowed, write the value out"
        )


# --- row 6 ----------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
HOSTILE = {
    "alias bomb": (BOMB.encode(), "alias *a0: aliases are not allowed"),
    "2 MiB": (b"a: 1\n" * 400_000, "larger than 16,384 bytes"),
    "just under the limit, one scalar": (b"a: " + b"x" * 16_000, "unknown field a"),
    "just under the limit, many keys": (
        b"".join(b"k%d: 1\n" % n for n in range(1_500)),
        "unknown field k0",
    ),
    "16,000 brackets": (b"a: " + b"[" * 16_000, "nested deeper than 16 levels"),
    "16,000 braces": (b"a: " + b"{" * 16_000, "nested deeper than 16 levels"),
    "8,000 dashes": (b"- " * 8_000, "nested deeper than 16 levels"),
    "tabs": (b"model:\n\tname: x\n", "indent with spaces, YAML allows no tabs"),
    "invalid UTF-8": (
        b"name: x\ntitle: \xff\xfe\n",
        ":2: not UTF-8 (byte 0xff): save the recipe as UTF-8",
    ),
    "NUL": (b"name: x\n\0\n", ":2: a NUL byte: this is not a text file"),
    "control character": (b"name: x\ntitle: \x07\n", ":2: not a YAML text"),
    "empty": (b"", "the recipe is empty"),
    "blank and comments": (b"\n\n# nothing\n", "the recipe is empty"),
    "a list": (b"- 1\n- 2\n", "a recipe is a mapping of sections"),
    "two documents": (b"a: 1\n---\nb: 1\n", "a second document"),
    "unclosed bracket": (b"a: [1, 2\n", "YAML syntax: "),
    "bad escape": (b'a: "\\uD800"\n', "unknown field a"),
    "huge number": (b"seed: " + b"9" * 16_000, "seed is inf"),
    "list as key": (b"? [a, b]\n: 1\n", "a key must be a plain word"),
}
CHILD = """
    import resource, sys
    from pathlib import Path
    from dgc.errors import RecipeError
    from dgc.recipe.load import load_recipe
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_recipe(Path(sys.argv[1]))
    except RecipeError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(grown, str(error).splitlines()[0][:400])
        print(len(error.problems))
        print("\\n".join(error.problems)[:4000])
        sys.exit(int(error.exit_code))
"""


def bounded():
    """2 GiB, and processor time that what expands a bomb spends and what refuses it (some 0.02 s)
    never does.
    """
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_stay_small(name, tmp_path, fault_table):
    data, said = HOSTILE[name]
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    with (
        fault_table.case(
            6, "bombs, tabs, bytes that are no text: refused, never expanded, in < 100 MB"
        ) as case,
        case.run(),
    ):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CHILD), path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
            preexec_fn=bounded,
        )
        assert done.returncode == 2, done.stderr
        kilobytes, _ = done.stdout.split(maxsplit=1)
        assert said in done.stdout
        assert str(path) in done.stdout
        assert int(kilobytes) < 100_000


def test_the_alias_bomb_is_as_small_as_the_listed_one():
    assert len(BOMB) < 400


@pytest.mark.parametrize("kind", ["folder", "fifo", "missing", "link to itself"])
def test_what_is_no_file(kind, tmp_path, fault_table):
    import os

    path = tmp_path / "r.yaml"
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "missing": lambda: None,
        "link to itself": lambda: path.symlink_to(path),
    }[kind]()
    refused = pytest.raises(RecipeError, match=r"r\.yaml: (not a file|cannot read the recipe)")
    with (
        fault_table.case(6, "folder, fifo, nothing: refused without waiting") as case,
        case.run(),
        refused,
    ):
        load_recipe(path)


# --- row 7 ----------------------------------------------------------------------------------------

IMPOSSIBLE = [
    (["model.heads=3"], "model.heads = 3 does not divide model.growth[0] = 8"),
    (
        ["model.stages=[2,2]"],
        "model.stages has 2 entries [2, 2] and model.growth has 3 [8, 16, 32]",
    ),
    (["model.growth=null"], "model.stages and model.growth must be given for a dydensenet"),
    (["model.group_3x3=16"], "model.group_3x3 = 16 does not divide model.growth[0] = 8"),
    (
        ["model.name=dyresnet18"],
        "model.stages, model.growth, model.bottleneck, model.group_3x3 belong to dydensenet",
    ),
    (
        ["model.num_classes=100"],
        "model.num_classes = 100, but data.name = fashion_mnist has 10 classes",
    ),
    (
        ["data.name=imagenet"],
        "but data.name = imagenet has 1000 classes; for a subset use data.name = image_folder",
    ),
    (
        ["data.image_size=28"],
        "data.image_size = 28, but data.name = fashion_mnist gives 32 x 32 images",
    ),
    (
        ["data.augment=resized_crop_flip"],
        "data.augment = resized_crop_flip is for image folders, and data.name =",
    ),
    (["data.resize=16"], "data.resize = 16 is smaller than data.image_size = 32"),
    (["data.crop_padding=32"], "data.crop_padding = 32 must be smaller than data.image_size = 32"),
    (["optim.schedule=multistep"], "optim.schedule = multistep needs optim.milestones"),
    (["optim.milestones=[2]"], "optim.milestones is given, but optim.schedule is cosine"),
    (
        ["optim.schedule=multistep", "optim.milestones=[3,2]"],
        "optim.milestones = [3, 2] must rise and stay below train",
    ),
    (["optim.momentum=0"], "optim.nesterov = true needs optim.momentum > 0"),
    (["optim.betas=[0.5,0.5]"], "optim.betas = [0.5, 0.5] belongs to adamw, and optim.name = sgd"),
    (["optim.name=adamw"], "optim.momentum = 0.9 belongs to sgd and rmsprop, and optim.name ="),
    (["optim.warmup_epochs=300"], "optim.warmup_epochs = 300 must be smaller than train.epochs"),
    (["optim.warmup_lr=0.01"], "optim.warmup_lr = 0.01 needs optim.warmup_epochs > 0"),
    (
        ["optim.warmup_epochs=1", "optim.warmup_lr=1.0"],
        "optim.warmup_lr = 1.0 is larger than optim.lr",
    ),
    (
        ["train.mixup=0.2", "train.batch_size=63"],
        "train.mixup mixes images two by two, and train.b",
    ),
    (
        ["data.rand_augment_magnitude=5"],
        "data.rand_augment_magnitude = 5 needs data.rand_augment >",
    ),
    (["train.accumulate=3"], "train.batch_size = 64 is not a multiple of train.accumulate = 3"),
    (["data.limit_train=32"], "train.batch_size = 64 is larger than data.limit_train = 32"),
    (
        ["train.amp=bf16", "train.dtype=float64"],
        "train.amp = bf16 and train.dtype = float64 exclude each other",
    ),
    (
        ["data.name=mnist"],
        (
            'data.name is "mnist" (a text); allowed: fashion_mnist, cifar10, cifar100,'
            " imagenet, image_folder, or python:"
        ),
    ),
    (
        ["model.name=resnet50"],
        'model.name is "resnet50" (a text); allowed: dydensenet, dyresnet18, torchvision/NAME',
    ),
]


@pytest.mark.parametrize(
    ("overrides", "said"), IMPOSSIBLE, ids=[" ".join(case[0]) for case in IMPOSSIBLE]
)
def test_impossible_combinations_name_both_fields(overrides, said, fault_table):
    with fault_table.case(7, "impossible combinations: both fields named") as case, case.run():
        lines = problems(DEMO, *overrides)
        assert any(said in line for line in lines), lines


def test_impossible_shapes_are_refused_in_a_process_that_never_loads_torch(tmp_path, fault_table):
    path = tmp_path / "r.yaml"
    path.write_text(
        DEMO.replace("heads: 4", "heads: 3").replace("stages: [2, 2, 2]", "stages: [2, 2]")
    )
    code = (
        "import sys; from dgc.recipe.load import load_recipe\n"
        "try: load_recipe(sys.argv[1])\n"
        "except Exception as error: print(error)\n"
        "print(sorted({'torch', 'torchvision', 'numpy'} & set(sys.modules)))"
    )
    with (
        fault_table.case(7, "refused before any data or device: torch is not even loaded") as case,
        case.run(),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True
        )
        *lines, modules = done.stdout.splitlines()
        assert [line.split(": ")[1].split(" ")[0] for line in lines] == [
            "model.heads",
            "model.stages",
        ]
        assert modules == "[]"
