"""Determinism receipts: the same bits twice, another digest for another seed, and where two part."""

import copy
import json

import pytest

from dgc.errors import IntegrityError, TargetMissedError, UsageError
from dgcctl.cli.fingerprint import fingerprint
from dgcctl.core.repro import receipts


@pytest.fixture(scope="module")
def receipt():
    return receipts.make(steps=4, seed=0, device="cpu", threads=1)


def test_the_same_machine_computes_the_same_bits(receipt):
    again = receipts.make(steps=4, seed=0, device="cpu", threads=1)
    found = receipts.compare(receipt, again)
    assert (found.first, found.facts) == (None, [])
    assert [row["digest"] for row in again["steps"]] == [row["digest"] for row in receipt["steps"]]


def test_the_receipt_names_what_may_change_the_bits(receipt):
    assert {"cpu", "torch", "threads", "cpu_capability", "code", "device"} <= set(receipt["facts"])
    assert receipt["facts"]["threads"] == 1
    assert len(receipt["digest"]) == 64
    assert float.fromhex(receipt["steps"][0]["loss"]) > 1
    assert receipt["seconds"] < 60


def test_another_seed_is_another_digest(receipt):
    other = receipts.make(steps=4, seed=1, device="cpu", threads=1)
    assert other["steps"][0]["digest"] != receipt["steps"][0]["digest"]
    with pytest.raises(UsageError, match=r"another seed \(0, 1\): make both with the same"):
        receipts.compare(receipt, other)


def changed(receipt):
    other = copy.deepcopy(receipt)
    for row in other["steps"][2:]:
        row["digest"] = row["digest"][::-1]
    other["digest"] = other["steps"][-1]["digest"]
    other["facts"]["cpu_capability"] = "another"
    return other


def test_the_first_differing_step_and_fact_are_named(receipt):
    found = receipts.compare(receipt, changed(receipt))
    assert found.first == 3
    assert [key for key, _, _ in found.facts] == ["cpu_capability"]


def test_two_files_are_compared_on_the_command_line(receipt, tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(receipt))
    b.write_text(json.dumps(changed(receipt)))
    fingerprint([a, a], steps=20)
    assert capsys.readouterr().out.startswith("bitwise equal over 4 steps")
    with pytest.raises(TargetMissedError, match="the receipts differ from step 3 of 4 on"):
        fingerprint([a, b], steps=20)
    assert "cpu_capability" in capsys.readouterr().out


def test_a_receipt_that_was_edited_is_refused(receipt, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**receipt, "digest": "0" * 64}))
    with pytest.raises(
        IntegrityError,
        match=r"no whole determinism receipt: make one with `dgcctl fingerprint -o FILE`",
    ):
        receipts.read(path)


def test_receipts_of_other_lengths_are_one_line(receipt):
    with pytest.raises(UsageError, match=r"have 4 and 3 steps: make both with the same --steps"):
        receipts.compare(receipt, {**receipt, "steps": receipt["steps"][:3]})


def test_a_device_that_is_not_here_is_one_line():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UsageError, match="--device cuda: no CUDA device here"):
        receipts.make(steps=1, seed=0, device="cuda", threads=1)
