"""Recipes with today's options: killed and resumed they come to the same bytes; on two ranks they
learn the same; the averaged weights are evaluated and exported by name.
"""

from __future__ import annotations

import argparse
import json
import signal

import pytest
import safetensors.torch

from dgc.hub.load_weights import open_file, open_run
from dgc.jobs.export import origin
from dgc.run import checkpoint_store
from dgc.run.files import sha256_of
from dgc.run.status import State, read_status
from dgcctl.cli.main import main
from tests.faults.training import Zygote, fingerprint, logged, make_run, train

RULES = {
    "sgd": "optim: {lr: 0.05, gate_weight_decay: 0.0, norm_weight_decay: 0.0, bias_weight_decay: 0.0}",
    "adamw": "optim: {name: adamw, lr: 0.003, weight_decay: 0.05, clip_grad_norm: 1.0,"
    " warmup_epochs: 1}",
    "rmsprop": "optim: {name: rmsprop, lr: 0.002, momentum: 0.9, label_smoothing: 0.1,"
    " warmup_epochs: 0.5, warmup_lr: 1.0e-4}",
}
MORE = [
    ("train: {epochs: 3,", "train: {epochs: 3, ema_decay: 0.9, mixup: 0.2, cutmix: 1.0,"),
    ("augment: crop_flip,", "augment: crop_flip, rand_augment: 2, random_erasing: 0.25,"),
]


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as started:
        yield started


@pytest.mark.parametrize("rule", list(RULES))
def test_killed_and_resumed_it_is_the_same_training(rule, zygote, tmp_path):
    changes = [("optim: {lr: 0.05}", RULES[rule]), *MORE]
    whole, killed = make_run(tmp_path / "whole", *changes), make_run(tmp_path / "killed", *changes)
    assert zygote.train(whole) == (0, "")
    code, said = zygote.train(killed, DGCCTL_CRASH_AT="train.step:9")
    assert code == -signal.SIGKILL, said
    assert zygote.train(killed, "--resume") == (0, "")
    digests = fingerprint(whole)
    assert "ema.safetensors" in digests
    assert fingerprint(killed) == digests


def test_two_ranks_stopped_and_resumed(tmp_path):
    changes = [("optim: {lr: 0.05}", RULES["adamw"]), *MORE]
    changes += [("limit_train: 44", "limit_train: 48")]
    runs = [make_run(tmp_path / name, *changes) for name in ("whole", "killed")]
    assert train(runs[0], ranks=2).returncode == 0
    assert train(runs[1], ranks=2, DGCCTL_CRASH_AT="train.step:9").returncode != 0
    done = train(runs[1], "--resume", ranks=2)
    assert done.returncode == 0, done.stderr
    first, second = map(fingerprint, runs)
    assert first == second


def test_an_odd_share_cannot_be_mixed(tmp_path):
    changes = [MORE[0], ("batch_size: 8, log", "batch_size: 6, log")]
    done = train(make_run(tmp_path / "run", *changes), ranks=2)
    assert done.returncode == 2
    assert "mixup and cutmix mix two by two: take a multiple of 4" in done.stderr


def test_averaged_weights_are_evaluated_and_exported_by_name(zygote, tmp_path, capsys):
    runs = tmp_path / "runs"
    run = make_run(runs / "averaged", MORE[0])
    plain = make_run(runs / "plain")
    for one in (run, plain):
        assert zygote.train(one) == (0, "")
        assert read_status(one).state == State.DONE
    last = logged(run, "eval")[-1]
    metrics = json.loads(run.metrics.read_text())
    for name in ("ema_top1_error", "ema_loss"):
        assert metrics[name] == last[name]
    assert "ema_loss" in (run.file("plots") / "eval.csv").read_text().splitlines()[0]
    assert "ema" not in (plain.file("plots") / "eval.csv").read_text()
    assert '"ema_' not in plain.metrics.read_text()

    def invoke(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--runs-dir", str(runs)]) == 0
        return capsys.readouterr().out

    out = tmp_path / "averaged.safetensors"
    invoke("ckpt", "export", "averaged", str(out), "--ema")
    folder = checkpoint_store.checkpoint_folder(run)
    kept = safetensors.torch.load_file(folder / "ema.safetensors")
    written = safetensors.torch.load_file(out)
    assert all((written[name] == value).all() for name, value in kept.items())
    assert json.loads(out.with_suffix(".json").read_text())["averaged"] is True
    told = json.loads(invoke("eval", "--run", "averaged", "--ema", "--json"))
    assert told["top1_error"] == last["ema_top1_error"]
    again = json.loads(invoke("eval", "--checkpoint", str(out), "--json"))
    assert again["loss"] == told["loss"] == pytest.approx(last["ema_loss"], rel=1e-6)
    for ema, name in ((True, "ema.safetensors"), (False, "model.safetensors")):
        assert open_file(folder / name).averaged is ema
        given = argparse.Namespace(
            run_dir=run.path, step="last", ema=ema, licence=None, precision="int8"
        )
        said = origin(given, open_run(run, ema=ema))
        assert (said["averaged"], said["precision"]) == (ema, "int8")
        assert said["weights_sha256"] == sha256_of(folder / name)
    given = argparse.Namespace(run_dir=None, weights=out, licence=None, precision="float32")
    assert origin(given, open_file(out))["averaged"] is True


def test_what_has_no_average_says_so(zygote, tmp_path, capsys):
    plain = make_run(tmp_path / "runs" / "plain")
    assert zygote.train(plain) == (0, "")
    given = ["ckpt", "export", "plain", str(tmp_path / "x"), "--ema"]
    assert main([*given, "--runs-dir", str(tmp_path / "runs")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "has no averaged weights: its recipe sets no train.ema_decay" in told
    assert main(["eval", "--pretrained", "imagenet_dyresnet18_h4", "--ema"]) == 2
    assert "--ema belongs to --run" in capsys.readouterr().err
