"""What `--precision` says: images that change their answer, and what it cannot go with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dgc.bench.inference_report import best_any
from dgc.bench.rows import BenchRow
from dgc.errors import UsageError
from dgc.jobs.evaluate import choose_engine
from dgc.jobs.paired import Paired
from dgc.train.ranks import Ranks
from dgcctl.cli.main import main

ALONE = Ranks(0, 1, 0, torch.device("cpu"))


def test_which_answers_change_is_counted_image_by_image() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    first = torch.tensor([[2.0, 1.0], [3.0, 0.0], [0.0, 4.0], [0.0, 1.0]])  # answers 0 0 1 1
    second = torch.tensor([[2.0, 1.0], [0.0, 3.0], [4.0, 0.0], [0.0, 1.0]])  # answers 0 1 0 1
    third = torch.tensor([[1.0, 2.0], [0.0, 3.0], [0.0, 4.0], [0.0, 1.0]])  # answers 1 1 1 1
    paired = Paired()
    for half in (slice(0, 2), slice(2, 4)):
        paired.keep(first[half], labels[half])
    for half in (slice(0, 2), slice(2, 4)):
        paired.compare(second[half], labels[half])
    facts = paired.facts(0.0, ALONE)
    assert (facts["changed"], facts["became_right"], facts["became_wrong"]) == (2, 0, 2)
    difference, whole = (first - second).norm(), second.norm()
    assert facts["logits_error"] == pytest.approx(float(difference / whole))
    back = Paired()
    back.keep(second, labels)
    back.compare(third, labels)
    facts = back.facts(0.0, ALONE)
    assert (facts["changed"], facts["became_right"], facts["became_wrong"]) == (2, 2, 0)


def test_only_the_native_engine_has_other_precisions() -> None:
    model = nn.Conv2d(3, 4, 3)
    line = r"--precision int8: only the native engine has it: leave out --engine eager"
    with pytest.raises(UsageError, match=line):
        choose_engine("eager", model, torch.device("cpu"), "int8")
    with pytest.raises(UsageError, match=r"it runs float32 networks on the CPU only"):
        choose_engine("auto", model.double(), torch.device("cpu"), "int8")


@pytest.mark.parametrize("other", ["--train", "--layers"])
def test_the_benchmark_in_8_bits_is_of_whole_networks(
    other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--precision", "int8", other]) == 2
    assert "--precision int8: leave out --train, --layers and --plan" in capsys.readouterr().err


def test_the_best_dense_engine_in_any_precision_is_found() -> None:
    def row(name: str, ms: float) -> BenchRow:
        return BenchRow("inference", name, median=ms)

    run = {
        name: row(name, ms)
        for name, ms in [
            ("native_int8", 2.0),
            ("native", 1.0),
            ("dense_openvino", 9.0),
            ("dense_openvino_int8", 5.0),
            ("dense_openvino_bf16", 3.0),
        ]
    }
    assert best_any(run) == ("dense_openvino_bf16", 1.5)
    assert best_any({"native": row("native", 1.0)}) is None
