"""`train.teacher`: the loss is Hinton's, the teacher is recorded, and resuming is as exact with it."""

from __future__ import annotations

import json
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dgc.errors import UsageError
from dgc.run import checkpoint_store
from dgc.train.distillation import Teacher
from dgcctl.cli.main import main
from dgcctl.core.runs.initial import overrides
from tests.faults.training import Zygote, fingerprint, logged, make_run


@pytest.fixture(scope="module")
def zygote():
    with Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def teacher(zygote, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("teacher") / "teacher")
    assert zygote.train(run) == (0, "")
    return run


def weights_of(run):
    return checkpoint_store.checkpoint_folder(run) / "model.safetensors"


def taught(file, more=""):
    return ("train: {epochs: 3,", f'train: {{epochs: 3, teacher: "{file}"{more},')


def test_the_loss_is_hintons():
    torch.manual_seed(0)
    images, labels = torch.randn(6, 4), torch.arange(6) % 3
    net, wise = nn.Linear(4, 3), nn.Linear(4, 3)
    logits = net(images)
    said = Teacher(wise, 3.0, 0.7, {}).taught(F.cross_entropy(logits, labels), logits, images)
    soft = torch.softmax(wise(images) / 3, 1)
    distance = (soft * (soft.log() - torch.log_softmax(logits / 3, 1))).sum(1).mean()
    wanted = 0.3 * F.cross_entropy(logits, labels) + 0.7 * 9 * distance
    torch.testing.assert_close(said, wanted)
    said.backward()
    assert wise.weight.grad is None
    # who is taught by himself alone has nothing to learn
    logits = net(images)
    own = Teacher(net, 3.0, 1.0, {}).taught(F.cross_entropy(logits, labels), logits, images)
    assert own.item() == pytest.approx(0.0, abs=1e-6)


def test_killed_and_resumed_and_recorded(zygote, teacher, tmp_path):
    change = taught(weights_of(teacher), ", teacher_weight: 0.9, teacher_temperature: 2.0")
    whole, killed = make_run(tmp_path / "whole", change), make_run(tmp_path / "killed", change)
    assert zygote.train(whole) == (0, "")
    code, said = zygote.train(killed, DGCCTL_CRASH_AT="train.step:9")
    assert code == -signal.SIGKILL, said
    assert zygote.train(killed, "--resume") == (0, "")
    assert fingerprint(killed) == fingerprint(whole)
    told = json.loads(whole.model.read_text())["teacher"]
    assert told["file"] == str(weights_of(teacher))
    assert "taught by dydensenet" in (whole.path / "log.txt").read_text()
    # the same first weights as without a teacher, and another loss
    first = [logged(run, "step")[0] for run in (teacher, whole)]
    assert first[0]["error"] == first[1]["error"]
    assert first[0]["gate_l1"] == first[1]["gate_l1"]
    assert first[0]["loss"] != first[1]["loss"]


def test_another_teacher_is_another_training(zygote, teacher, tmp_path):
    file = tmp_path / "wise.safetensors"
    main(["ckpt", "export", "teacher", str(file), "--runs-dir", str(teacher.path.parent)])
    run = make_run(tmp_path / "run", taught(file))
    code, _ = zygote.train(run, DGCCTL_CRASH_AT="train.step:9")
    assert code == -signal.SIGKILL
    for name in (file, file.with_suffix(".json")):
        name.unlink()
    earlier = str(checkpoint_store.list_checkpoints(teacher)[0].step)
    given = ["ckpt", "export", "teacher", str(file), "--step", earlier]
    assert main([*given, "--runs-dir", str(teacher.path.parent)]) == 0
    code, said = zygote.train(run, "--resume")
    assert code == 2
    assert "teacher digest was" in said


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("x", "/nowhere/x.safetensors"), 3, "no such file: name a checkpoint's model.safetensors"),
        ((", ", f", teacher_sha256: {'a' * 64}, "), 4, "this is another teacher than the recipe"),
        (("0.286, 0.286, 0.286", "0.3, 0.3, 0.3"), 3, "was trained with data.mean = [0.286, 0.286"),
    ],
)
def test_what_does_not_fit_is_told(change, code, said, zygote, teacher, tmp_path):
    if change[0] == "x":
        changes = [taught(change[1])]
    elif "sha256" in change[1]:
        changes = [taught(weights_of(teacher), change[1].rstrip(", "))]
    else:
        changes = [taught(weights_of(teacher)), ("mean: [" + change[0], "mean: [" + change[1])]
    found, text = zygote.train(make_run(tmp_path / "run", *changes))
    assert found == code
    assert said in " ".join(text.split())


def test_a_run_or_a_file_by_name(teacher, tmp_path):
    file = weights_of(teacher)
    assert overrides(None, "teacher", teacher.path.parent) == [f'train.teacher="{file}"']
    assert overrides(None, str(file), tmp_path) == [f'train.teacher="{file}"']
    with pytest.raises(UsageError, match="--teacher nobody: is no file and no run"):
        overrides(None, "nobody", tmp_path)


@pytest.mark.parametrize("key", ["train.teacher", "model.init"])
def test_a_file_that_is_missing_is_told_before_any_data_is_looked_for(key, zygote, tmp_path):
    changes = [("name: fashion_mnist", f'dir: "{tmp_path / "nowhere"}", name: image_folder')]
    if key == "train.teacher":
        changes.append(taught("/nowhere/x.safetensors"))
    else:
        changes.append(("model: {", 'model: {init: "/nowhere/x.safetensors", '))
    code, said = zygote.train(make_run(tmp_path / "run", *changes))
    assert code == 3
    assert f"{key} = /nowhere/x.safetensors: no such file" in " ".join(said.split())
