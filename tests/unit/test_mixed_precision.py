"""train.amp: on a CPU it is taken where the processor and the network are faster with it, else the
network trains in float32, which is logged, recorded, and kept by a run that goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgc.kernels.cpu import library, train_passes
from dgc.recipe.load import Recipe, find_recipe, load_recipe
from dgc.run import checkpoint_store
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.train import mixed_precision, state
from dgc.train.mixed_precision import Amp, MixedPrecision, choose
from tests.unit.test_train_options import losses, run_it

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("cifar10_h4"), overrides)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with the C++ kernels and bfloat16."""
    monkeypatch.setattr(train_passes, "available", lambda: True)
    has(monkeypatch, "vnni", "bf16")


def has(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    monkeypatch.setattr(library, "facts", lambda: {"kernel_features": list(features)})


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_gpu_computes_in_what_was_asked_for(amp: Amp) -> None:
    assert choose(recipe(f"train.amp={amp}"), CUDA) == (amp, "")


@pytest.mark.parametrize("form", ["dgc", "sgc"])
def test_where_the_kernels_compute_float32_is_faster(form: str) -> None:
    amp, why = choose(recipe("train.amp=bf16", f"model.form={form}"), CPU)
    assert (amp, why) == (
        "off",
        "which the C++ kernels compute in and is faster than PyTorch in bfloat16",
    )


def test_dense_and_plain_networks_have_it_where_the_processor_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense = recipe("train.amp=bf16", "model.form=dense")
    assert choose(dense, CPU) == ("bf16", "")
    assert choose(recipe("train.amp=bf16", "train.backend=plain"), CPU) == ("bf16", "")
    has(monkeypatch, "vnni", "amx")
    assert choose(dense, CPU).amp == "bf16"
    has(monkeypatch, "vnni")
    assert choose(dense, CPU) == ("off", "this processor has no instructions for bfloat16")


def test_without_kernels_the_processor_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_passes, "available", lambda: False)
    monkeypatch.setattr(library, "facts", lambda: {"kernels": "none"})
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for bf16 in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=bf16: found)
        assert choose(recipe("train.amp=bf16"), CPU).amp == ("bf16" if bf16 else "off")


def test_fp16_is_for_gpus() -> None:
    assert choose(recipe("train.amp=fp16", "model.form=dense"), CPU).amp == "off"


def test_what_is_off_needs_no_word() -> None:
    assert choose(recipe(), CPU) == ("off", "")
    assert MixedPrecision("off").notes("off") == []


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("asked") / "run"
    with pytest.MonkeyPatch.context() as patch:  # any machine with the kernels; made before a test
        patch.setattr(mixed_precision, "multiplies_bfloat16", lambda: True)
        return run_it(folder, ("log_every: 3", "log_every: 3, amp: bf16"))


def test_a_run_says_and_records_that_it_computes_in_float32(asked: RunDir, tmp_path: Path) -> None:
    assert read_json(asked.model)["amp"] == "off"
    assert "train.amp = bf16: computed in float32, which the C++ kernels" in asked.log.read_text()
    newest = checkpoint_store.newest_valid(asked)
    assert newest is not None
    assert state.decode_state(newest[1])[1]["stands_on"]["amp"] == "off"
    assert losses(asked) == losses(run_it(tmp_path / "off"))


def test_a_run_goes_on_as_it_began(
    asked: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_recipe(asked.recipe)
    monkeypatch.setattr(train_passes, "available", lambda: False)  # now bfloat16 would be faster
    assert choose(own, CPU) == ("bf16", "")
    assert choose(own, CPU, asked) == ("off", "as it began")
    older = RunDir(tmp_path)  # from before it was recorded: it computed as its recipe says
    facts = read_json(asked.model)
    del facts["amp"]
    write_json(older.model, facts)
    monkeypatch.undo()
    assert choose(own, CPU, older) == ("bf16", "")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_in_mixed_precision_a_training_begins_as_in_float32(
    amp: Amp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps before a channel is switched off agree up to rounding."""
    plain = run_it(tmp_path / "plain")
    monkeypatch.setattr(mixed_precision, "choose", lambda *_: MixedPrecision(amp))
    mixed = run_it(tmp_path / "mixed", ("log_every: 3", f"log_every: 3, amp: {amp}"))
    assert read_json(mixed.model)["amp"] == amp
    assert losses(mixed) != losses(plain)
    assert losses(mixed)[:3] == pytest.approx(losses(plain)[:3], rel=0.05, abs=0)
