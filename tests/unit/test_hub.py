"""Registry, lock, progress, `dgcctl ckpt`, exports: what needs no full-size file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dgc
from dgc.errors import IntegrityError, UsageError
from dgc.hub import filetype
from dgc.hub import weights_export as exporting
from dgc.hub.card import card_of, read_card
from dgc.hub.load_weights import open_file, open_run
from dgc.hub.registry import MIB, find_entry, layout_digest, load_registry
from dgc.models import create_model
from dgc.models.released import load_released, to_released
from dgc.recipe.load import dump_recipe, load_recipe
from dgc.run import checkpoint_store
from dgc.run.events import EventKind, EventWriter
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.train.state import MODEL, _portable
from dgcctl.cli._ui.transfer_line import bar_text
from dgcctl.cli.main import main
from tests.faults import hostile
from tests.faults import hosts as play

ROOT = Path(__file__).parents[2]
NAME = "cifar10_dydensenet86_h4"
SMALL = ["model.stages=[1, 1]", "model.growth=[8, 16]", "data.workers=0"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.replace("error: ", "")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("DGCCTL_REGISTRY", "DGCCTL_OFFLINE", "DGCCTL_CHECKPOINTS_LOCK"):
        monkeypatch.delenv(name, raising=False)


# --- registry -------------------------------------------------------------------------------------


def test_the_four_released_files_are_known() -> None:
    registry = load_registry()
    assert set(registry) <= set(dgc.list_models())
    told = {
        name: (e.size_mib, e.top1_error, e.top5_error, e.macs, e.parameters)
        for name, e in registry.items()
    }
    assert told == {
        "imagenet_dydensenet_h4": (92.3, 25.4, 7.8, 549_273_592, 24_060_664),
        "imagenet_dyresnet18_h4": (47.2, 31.22, 11.38, 890_396_782, 12_335_144),
        "cifar10_dydensenet86_h4": (16.7, 4.77, None, 71_037_118, 4_264_810),
        "cifar100_dydensenet86_h4": (17.0, 23.41, None, 71_109_208, 4_336_900),
    }
    for entry in registry.values():
        assert [link.host for link in entry.links] == ["gdrive", "onedrive"]
        recipe = load_recipe(ROOT / "recipes" / f"{entry.recipe}.yaml")
        how = entry.preprocessing
        assert (
            recipe.data.resize,
            recipe.data.image_size,
            tuple(recipe.data.mean),
            tuple(recipe.data.std),
        ) == (
            how.resize,
            how.image_size,
            how.mean,
            how.std,
        )


@pytest.mark.parametrize("name", load_registry())
def test_layout_is_that_of_the_network(name: str) -> None:
    """The digest was made from the key lists of the released code; our network maps onto exactly
    these keys.
    """
    with torch.device("meta"):
        state = to_released(create_model(name).state_dict())
    entry = find_entry(name)
    told = [
        (key, str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for key, value in state.items()
    ]
    assert len(told) == entry.tensors
    assert layout_digest(told) == entry.layout_sha256
    assert (
        layout_digest(reversed([("module." + key, *rest) for key, *rest in told]))
        == entry.layout_sha256
    )
    assert layout_digest(told[1:]) != entry.layout_sha256


def test_a_registry_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGCCTL_REGISTRY", str(tmp_path / "mine.json"))
    for content in (
        "",
        "{}",
        '{"schema_version": 9, "checkpoints": {}}',
        '{"schema_version": 1, "checkpoints": {"a": {}}}',
    ):
        (tmp_path / "mine.json").write_text(content)
        with pytest.raises(IntegrityError, match="not a usable registry"):
            load_registry()


def test_the_hub_needs_no_torch_to_look_fetch_and_inspect() -> None:
    code = (
        "import sys, dgc.hub, dgc.hub.registry, dgc.hub.fetch, dgc.hub.scan, dgc.hub.convert,"
        " dgc.hub.weights_export\nimport dgcctl.cli.ckpt, dgcctl.cli.predict\nassert not {'torch', 'numpy',"
        " 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_progress_line() -> None:
    assert (
        bar_text("x", 6 * MIB, 12 * MIB, 2 * MIB)
        == "x  [############............]  6.0 of 12.0 MiB  2.0 MiB/s  3 s left"
    )
    assert bar_text("x", 6 * MIB, None, 0) == "x  6.0 MiB  0.0 MiB/s"


# --- dgcctl ckpt ----------------------------------------------------------------------------------


def test_ls_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ckpt", "ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checkpoints"]
    assert [row["state"] for row in rows] == ["not fetched"] * 4
    assert main(["ckpt", "info", "imagenet_dyresnet18_h4"]) == 0
    told = capsys.readouterr().out
    for words in (
        "31.22",
        "11.38",
        "890,396,782",
        "47.2 MiB",
        "never published",
        "256",
        "drive.google.com",
        "MIT",
    ):
        assert words in told
    assert main(["ckpt", "info", "imagenet_resnet18_h4"]) == 2
    assert "did you mean imagenet_dyresnet18_h4?" in said(capsys)


def test_download_over_the_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = hostile.legacy(
        ["0"], hostile.entry("a", hostile.tensor("0", 4, (4,), (1,))), hostile.block(4, b"\0" * 16)
    )
    registry = json.loads((ROOT / "dgc/hub/registry.json").read_text())
    registry["checkpoints"][NAME]["size_mib"] = len(content) / MIB
    (tmp_path / "registry.json").write_text(json.dumps(registry))
    monkeypatch.setenv("DGCCTL_REGISTRY", str(tmp_path / "registry.json"))
    with play.running() as hosts:
        monkeypatch.setenv("DGCCTL_GDRIVE_URL", hosts.url)
        monkeypatch.setenv("DGCCTL_ONEDRIVE_URL", hosts.url)
        hosts.drive, hosts.onedrive = [play.page(play.QUOTA)], [play.file(content)]
        assert main(["ckpt", "download", NAME, "--json"]) == 0
        seen = capsys.readouterr()
        assert Path(json.loads(seen.out)["path"]).read_bytes() == content
        assert "Google Drive quota exceeded" in seen.err
        assert "trusted on first use" in seen.err
        hosts.drive = [play.file(content[:-16] + b"\1" * 16)]
        assert main(["ckpt", "download", NAME, "--cross-check"]) == 4
        assert "the hosts disagree" in said(capsys)
        hosts.drive = hosts.onedrive = [play.status(404)]
        assert main(["ckpt", "download", "cifar100_dydensenet86_h4"]) == 6
        assert "dgcctl ckpt import FILE --name cifar100_dydensenet86_h4" in said(capsys)
    assert main(["ckpt", "import", json.loads(seen.out)["path"]]) == 4
    assert "its tensors are those of none of the released networks" in said(capsys)


def test_import_says_what_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").write_bytes(play.LOGIN)
    assert main(["ckpt", "import", str(tmp_path / "a.tar")]) == 4
    assert "looks like a Microsoft login page" in said(capsys)
    (tmp_path / "b.tar").write_bytes(hostile.calls("posix", "system", "true"))
    assert main(["ckpt", "import", str(tmp_path / "b.tar"), "--name", NAME]) == 5
    assert said(capsys) == "refused: b.tar needs global posix.system at offset 2\n"
    assert main(["ckpt", "import", str(tmp_path / "absent.tar")]) == 3
    assert main(["ckpt", "verify", NAME]) == 6
    assert f"dgcctl ckpt download {NAME}" in said(capsys)


def test_a_published_error_is_met_to_its_last_digit() -> None:
    from dgcctl.cli.ckpt import _figure

    assert _figure("top1_error", 31.22, 31.2249)["passed"]
    assert not _figure("top1_error", 31.22, 31.226)["passed"]
    assert _figure("top1_error", 25.4, 25.352)["passed"]
    assert not _figure("top1_error", 4.77, 4.78)["passed"]
    assert "published 4.77 %, measured 4.7800 %" in _figure("top1_error", 4.77, 4.78)["detail"]


def test_the_lock_file_can_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgc.hub.cache import Cache

    assert Cache(tmp_path).pins == tmp_path / "checkpoints.lock"
    monkeypatch.setenv("DGCCTL_CHECKPOINTS_LOCK", str(tmp_path / "project.lock"))
    assert Cache(tmp_path).pins == tmp_path / "project.lock"


# --- exports --------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of a small network with two checkpoints."""
    recipe = load_recipe(ROOT / "recipes" / "cifar10_h4.yaml", SMALL)
    made = RunDir(tmp_path / "runs" / "20260101T000000Z-small-abcdef")
    made.checkpoints.mkdir(parents=True)
    made.recipe.write_text(dump_recipe(recipe))
    events = EventWriter(made)
    for step, pointer, epoch, error in ((10, made.best, 2, 12.5), (20, made.last, 4, 15.25)):
        model = small_network(seed=step)
        files = {MODEL: _safetensors(model)}
        events.append(
            EventKind.EVAL,
            step=step,
            epoch=epoch,
            split="val",
            top1_error=error,
            top5_error=1.0,
            loss=0.5,
        )
        checkpoint_store.point_to(pointer, checkpoint_store.commit(made, step, files))
    events.close()
    write_json(made.metrics, {"top1_error": 15.25, "epoch": 4})
    classes = [f"kind {label}" for label in range(10)]
    write_json(
        made.data,
        {"name": "cifar10", "classes": classes, "val": {"sha256": "ab" * 32, "samples": 10_000}},
    )
    return made


def small_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    recipe = load_recipe(ROOT / "recipes" / "cifar10_h4.yaml", SMALL)
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    dgc.set_progress(model, 1.0)
    return model.eval()


def _safetensors(model: nn.Module) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(_portable(model.state_dict()))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_own_export_is_complete_and_cannot_be_changed(run: RunDir, tmp_path: Path) -> None:
    weights, record = exporting.export_own(run, tmp_path / "out" / "mine")
    assert [weights.name, record.name] == ["mine.safetensors", "mine.json"]
    told = json.loads(record.read_text())
    assert (told["run"], told["step"]) == (run.id, 20)
    assert told["metrics"] == {"top1_error": 15.25, "top5_error": 1.0, "loss": 0.5, "epoch": 4}
    opened = open_file(weights)
    assert torch.equal(logits(opened.model), logits(small_network(20)))
    assert opened.card.classes == tuple(f"kind {label}" for label in range(10))
    assert opened.recipe.digest() == told["recipe_digest"]
    assert not os.stat(weights).st_mode & 0o222
    with pytest.raises(UsageError, match="never overwritten"):
        exporting.export_own(run, tmp_path / "out" / "mine")
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"mine\.json says"):
        open_file(weights)
    record.unlink()
    assert open_file(weights).card == opened.card  # the file by itself knows


def test_the_best_step_is_exported_by_name_with_its_own_metrics(
    run: RunDir, tmp_path: Path
) -> None:
    weights, record = exporting.export_own(run, tmp_path / "mine", "best")
    told = json.loads(record.read_text())
    assert (told["step"], told["metrics"]["top1_error"], told["metrics"]["epoch"]) == (10, 12.5, 2)
    assert torch.equal(logits(open_file(weights).model), logits(small_network(10)))
    released = AuthorsLoader(exporting.export_released(run, tmp_path / "last.tar"))
    assert (released.epoch, released.best) == (4, 84.75)
    run.best.unlink()
    with pytest.raises(UsageError, match="has no checkpoint best: there are last, 10, 20"):
        exporting.export_own(run, tmp_path / "other", "best")


@pytest.mark.parametrize("form", ["own", "beside", "released"])
def test_what_a_file_says_goes_before_the_recipe_at_hand(
    run: RunDir, tmp_path: Path, form: str
) -> None:
    """Other sizes, mean and classes in the recipe change nothing; another network is refused."""
    other = load_recipe(
        run.recipe, ["data.mean=[0.9, 0.9, 0.9]", "data.name=image_folder", "data.image_size=48"]
    )
    if form == "released":
        file = exporting.export_released(run, tmp_path / "theirs.tar")
    else:
        file, record = exporting.export_own(run, tmp_path / "mine")
        if form == "own":
            record.unlink()
    opened = open_file(file, other)
    assert opened.preprocessing == card_of(load_recipe(run.recipe)).preprocessing
    assert opened.card.classes[3] == "kind 3"
    with pytest.raises(
        UsageError,
        match=r"was made with model\.gate_factor = 0\.25, and the recipe given says 0\.5",
    ):
        open_file(file, load_recipe(run.recipe, ["model.gate_factor=0.5"]))


@pytest.mark.parametrize(
    "damage",
    [
        {"preprocessing": {}},
        {"preprocessing": None},
        {"classes": "cat"},
        {"classes": [1, 2]},
        {
            "preprocessing": {
                "resize": None,
                "image_size": 10**9,
                "mean": [0] * 3,
                "std": [1] * 3,
                "channels": 3,
            }
        },
        {
            "preprocessing": {
                "resize": None,
                "image_size": 32,
                "mean": [0] * 3,
                "std": [0] * 3,
                "channels": 3,
            }
        },
        {
            "preprocessing": {
                "resize": None,
                "image_size": 32,
                "mean": [0] * 2,
                "std": [1] * 3,
                "channels": 3,
            }
        },
        {
            "preprocessing": {
                "resize": None,
                "image_size": 32,
                "mean": ["nan"] * 3,
                "std": [1] * 3,
                "channels": 3,
            }
        },
    ],
)
def test_a_damaged_card_is_refused(run: RunDir, damage: dict[str, Any]) -> None:
    good = card_of(load_recipe(run.recipe)).document()
    assert read_card(good, "here") == card_of(load_recipe(run.recipe))
    with pytest.raises(
        IntegrityError, match=r"^here: no usable record of classes and preprocessing"
    ):
        read_card({**good, **damage}, "here")


def test_which_checkpoint(run: RunDir, tmp_path: Path) -> None:
    assert torch.equal(logits(open_run(run, "last").model), logits(small_network(20)))
    assert torch.equal(logits(open_run(run, "10").model), logits(small_network(10)))
    with pytest.raises(UsageError, match="has no checkpoint 11: there are best, last, 10, 20"):
        open_run(run, "11")
    weights = run.checkpoints / "step-000010" / MODEL
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        exporting.export_own(run, tmp_path / "out", "10")


class AuthorsLoader:
    """What the released code does with a checkpoint: DataParallel around the network, a plain dict
    of plain values.
    """

    def __init__(self, path: Path) -> None:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self.epoch, self.best = content["epoch"], content["best_prec1"]
        self.state = content["state_dict"]


@pytest.mark.parametrize("container", ["legacy", "zip"])
def test_export_in_the_released_format(run: RunDir, tmp_path: Path, container: str) -> None:
    out = exporting.export_released(run, tmp_path / "theirs.tar", "10", container)
    assert out.read_bytes()[:2] == (b"PK" if container == "zip" else b"\x80\x02")
    loaded = AuthorsLoader(out)
    assert (loaded.epoch, loaded.best) == (2, 87.5)
    model = small_network(10)
    wanted = to_released(model.state_dict())
    assert set(loaded.state) == {f"module.{key}" for key in wanted}
    assert all(torch.equal(loaded.state[f"module.{key}"], value) for key, value in wanted.items())
    recipe = load_recipe(run.recipe)
    again = load_released(out, recipe.model.name, **recipe.model.kwargs())
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(UsageError, match="--recipe"):
        open_file(out)
    if container == "legacy":  # a released file of one's own network opens with its recipe
        assert torch.equal(logits(open_file(out, recipe).model), logits(model))


def test_export_from_the_command_line(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--runs-dir", str(run.path.parent)]
    assert main(["ckpt", "export", "latest", str(tmp_path / "mine"), *folder]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "mine.safetensors"),
        str(tmp_path / "mine.json"),
    ]
    # the last, as eval and predict take it
    assert json.loads((tmp_path / "mine.json").read_text())["step"] == 20
    assert (
        main(["ckpt", "export", "latest", str(tmp_path / "x"), "--container", "zip", *folder]) == 2
    )
    assert "belongs to --released-format" in said(capsys)
    assert main(["ckpt", "export", "latest", str(tmp_path / "x"), "--step", "7", *folder]) == 2
    assert "has no checkpoint 7" in said(capsys)


def test_weights_without_a_header_are_named(tmp_path):
    for content in (b"", b"0123456789", (2).to_bytes(8, "little") + b"[]"):
        with pytest.raises(
            IntegrityError,
            match=r"model\.safetensors: not a safetensors file \(no header of tensors\)",
        ):
            filetype.with_metadata(content, {}, tmp_path / "model.safetensors")
