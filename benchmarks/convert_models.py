"""What conversion does to networks that people use: torchvision's and timm's, random weights.

    python -m benchmarks.convert_models                 # all; goes on where it stopped
    python -m benchmarks.convert_models --only dla34    # one, again
    python -m benchmarks.convert_models --report        # benchmarks/convert_models.md from the results

A network whose answer with random weights hardly depends on the image (its BatchNorms still hold 0
and 1, and what it computes fades on the way) would pass any comparison. So how far the answers to
two images are apart is measured first; where that is less than a hundredth, BatchNorm takes the
statistics of some images before the network is converted, and the row says so.

The list was fixed before any of them was tried; at most three of one family. Each is built with
1,000 classes and converted with 4 heads at gate_factor 0.5 on one image of 224x224. Then: how far
it is off the original; whether a training step at nine tenths of the schedule is finite; whether at
the end of the schedule each head keeps exactly the channels that it should; whether it comes back
bit for bit from its structure and its state dict.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dgc
from benchmarks import native_models
from dgc.conversion import trial
from dgc.errors import DgcError
from dgc.hub import foreign
from dgc.layers import iter_dgc
from dgc.schedule import inactive_channels

HERE = Path(__file__).resolve().parent
RESULTS, REPORT = HERE / "convert_models.json", HERE / "convert_models.md"
GATE_FACTOR, SIZE, BAR = 0.5, 224, 1e-5
APART = 1e-2  # less than this between the answers to two images, and comparing them says little

# family -> its networks
MODELS = {
    "alexnet": ["torchvision/alexnet"],
    "vgg": ["torchvision/vgg11_bn", "torchvision/vgg16_bn"],
    "resnet": ["torchvision/resnet18", "torchvision/resnet50", "torchvision/wide_resnet50_2"],
    "resnext": ["torchvision/resnext50_32x4d"],
    "densenet": ["torchvision/densenet121", "torchvision/densenet169"],
    "inception": ["torchvision/googlenet", "torchvision/inception_v3", "timm/inception_v4"],
    "squeezenet": ["torchvision/squeezenet1_0", "torchvision/squeezenet1_1"],
    "shufflenet": ["torchvision/shufflenet_v2_x0_5", "torchvision/shufflenet_v2_x1_0"],
    "mobilenet": [
        "torchvision/mobilenet_v2",
        "torchvision/mobilenet_v3_small",
        "torchvision/mobilenet_v3_large",
    ],
    "mnasnet": ["torchvision/mnasnet0_5", "torchvision/mnasnet1_0"],
    "efficientnet": [
        "torchvision/efficientnet_b0",
        "torchvision/efficientnet_v2_s",
        "timm/efficientnet_lite0",
    ],
    "regnet": [
        "torchvision/regnet_x_400mf",
        "torchvision/regnet_y_400mf",
        "torchvision/regnet_y_1_6gf",
    ],
    "convnext": ["torchvision/convnext_tiny"],
    "seresnet": ["timm/seresnet50", "timm/legacy_seresnet18"],
    "skresnet": ["timm/skresnet18"],
    "ecaresnet": ["timm/ecaresnet26t"],
    "resnest": ["timm/resnest14d"],
    "res2net": ["timm/res2net50_26w_4s"],
    "repvgg": ["timm/repvgg_a2", "timm/repvgg_b0"],
    "darknet": ["timm/darknet53", "timm/cspdarknet53", "timm/cs3darknet_m"],
    "cspresnet": ["timm/cspresnet50"],
    "dla": ["timm/dla34", "timm/dla60"],
    "hrnet": ["timm/hrnet_w18_small"],
    "vovnet": ["timm/vovnet39a", "timm/ese_vovnet19b_dw"],
    "ghostnet": ["timm/ghostnet_100", "timm/ghostnetv2_100"],
    "tinynet": ["timm/tinynet_a"],
    "mixnet": ["timm/mixnet_s"],
    "fbnet": ["timm/fbnetc_100"],
    "spnasnet": ["timm/spnasnet_100"],
    "hardcorenas": ["timm/hardcorenas_a"],
    "lcnet": ["timm/lcnet_100"],
    "rexnet": ["timm/rexnet_100"],
    "nf": ["timm/nf_resnet50", "timm/nf_regnet_b1", "timm/eca_nfnet_l0"],
    "gernet": ["timm/gernet_s"],
    "selecsls": ["timm/selecsls42b"],
    "dpn": ["timm/dpn68"],
    "xception": ["timm/xception41"],
    "resnetv2": ["timm/resnetv2_50"],
    "gcresnet": ["timm/gcresnet33ts"],
    "mobileone": ["timm/mobileone_s0"],
}
WITHOUT_AUX = {"aux_logits": False}
ARGUMENTS = {"torchvision/googlenet": WITHOUT_AUX, "torchvision/inception_v3": WITHOUT_AUX}


def build(name: str) -> nn.Module:
    return foreign.build(name, 1000, ARGUMENTS.get(name))


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def apart(model: nn.Module) -> float:
    """How far the answers to two images are apart, as a share of the largest number."""
    return trial.off(trial.run(model, images(1, 1)), trial.run(model, images(1, 4)))


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """BatchNorm takes mean and variance of some images, as in the first steps of a training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # an average of all that it sees
            module.reset_running_stats()
    model.train()
    for seed in (11, 12):
        model(images(6, seed))


def step_is_finite(model: nn.Module) -> bool:
    """One training step's loss and gradients, for two images."""
    model.train()
    dgc.set_progress(model, 0.9)
    loss = model(images(2, 2)).square().mean() + 1e-5 * dgc.gate_l1(model)
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in grads)


def keeps_what_it_should(model: nn.Module) -> bool:
    """At the end of the schedule: the channels that each head of each layer selects for an image."""
    dgc.set_progress(model, 1.0)
    wrong: list[str] = []

    def look(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        selected, _ = layer._switch_off(layer.gates(inputs[0]))
        n = inactive_channels(1.0, layer.in_channels, layer.gate_factor)
        if not ((selected > 0).sum(-1) == layer.in_channels - n).all():
            wrong.append(str(layer))

    hooks = [layer.register_forward_pre_hook(look) for _, layer in iter_dgc(model)]
    trial.run(model, images(1, 3))
    for hook in hooks:
        hook.remove()
    return not wrong


def original(name: str) -> tuple[nn.Module, float, bool]:
    """The network, how far its answers are apart, and whether it was settled for that."""
    torch.manual_seed(0)
    model = build(name)
    far = apart(model)
    settled = far < APART
    if settled:
        settle(model)
        far = apart(model)
    return model, far, settled


def engine_alone(row: dict[str, Any]) -> dict[str, Any]:
    """A row of conversion, and how the network runs natively."""
    model, _, _ = original(row["name"])
    dgc.convert(model, images(1, 1), gate_factor=GATE_FACTOR)
    return row | native_models.native(model, images(native_models.IMAGES, 7))


def measure(name: str) -> dict[str, Any]:
    began = time.monotonic()
    model, far, settled = original(name)
    report = dgc.convert(model, images(1, 1), gate_factor=GATE_FACTOR)
    row: dict[str, Any] = {
        "name": name,
        "settled": settled,
        "apart": far,
        "converted": len(report.converted),
        "convolutions": len(report.layers),
        "share": report.share,
        "dense": report.dense,
        "promised": report.promised,
        "gate_parameters": report.gate_parameters,
        "parameters": sum(p.numel() for p in model.parameters()),
        "difference": report.difference,
        "note": report.note,
        "kept": keeps_what_it_should(model),
    }
    again = dgc.rebuild(build(name), json.loads(json.dumps(dgc.structure(model))))
    again.load_state_dict(model.state_dict(), strict=True)
    pairs = zip(trial.run(model, images(1, 4)), trial.run(again, images(1, 4)), strict=True)
    row["bit_equal"] = all(torch.equal(a, b) for a, b in pairs)
    row["step_finite"] = step_is_finite(model)
    del model
    row |= native_models.native(again, images(native_models.IMAGES, 7))
    return row | {"seconds": round(time.monotonic() - began, 1)}


def tried(name: str) -> dict[str, Any]:
    try:
        return measure(name)
    except DgcError as error:
        return {"name": name, "refused": str(error)}
    except Exception as error:  # noqa: BLE001 - a row says what happened; the others go on
        return {"name": name, "failed": f"{type(error).__name__}: {str(error)[:200]}"}


def good(row: dict[str, Any]) -> bool:
    exact = row.get("difference") is not None and row["difference"] <= BAR
    return (
        exact and row["apart"] >= APART and row["kept"] and row["bit_equal"] and row["step_finite"]
    )


def report(rows: dict[str, dict[str, Any]]) -> str:
    listed = [name for names in MODELS.values() for name in names]
    there = [rows[name] for name in listed if name in rows]
    done = [row for row in there if "converted" in row]
    worst = max((row["difference"] or 0.0 for row in done), default=0.0)
    lines = [
        "# Conversion of networks that people use",
        "",
        f"`python -m benchmarks.convert_models`: {len(listed)} networks of torchvision and timm, a list",
        "that was fixed beforehand, random weights, 4 heads, gate_factor 0.5, one image of 224x224, float32",
        f"on a CPU, PyTorch {torch.__version__.split('+')[0]}. Tried: {len(there)}. Converted:"
        f" {len(done)}; all checks held: {sum(map(good, done))}.",
        f"Largest difference from the original, as a share of its largest output: {worst:.1e}.",
        "",
        "share: of the convolutions' MACs, in converted layers. then: all convolutions at the end of the",
        "schedule. gates: parameters in gates, of the whole network before. step: loss and gradients of a",
        "training step at 0.9 of the schedule are finite. kept: at its end each head selects exactly as many",
        "channels as it should. back: rebuilt from its structure and state dict, bit for bit. apart: the",
        "original's answers to two images, as a share of the largest number (with random weights some hardly",
        "look at the image, and any comparison would hold); (s): BatchNorm took the statistics of 12 images",
        "first, because they were less than 0.01 apart.",
        "",
        *_engine(done),
        "",
        "| network | converted | share | M MACs | then | gates | apart | off by | step | kept | back | native | plan | engine off |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|---|---:|---|---:|",
        *(_line(row) for row in done),
        "",
        *(f"- {row['name']}, in the way of one plan: {'; '.join(row['blockers'])}" for row in done if row.get("blockers")),
        *(f"- {row['name']}: {row['note']}" for row in done if row["note"]),
        *(f"- {row['name']}: {row.get('refused') or row['failed']}" for row in there if "converted" not in row),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _engine(done: list[dict[str, Any]]) -> list[str]:
    """What the columns of the engine say, all together."""
    there = [row for row in done if "plan" in row]
    cases, ties = (sum(row[key] for row in there) for key in ("images", "near_ties"))
    whole = sum(row["plan"] == "whole" for row in there)
    return [
        f"The engine, on {len(there)} of the converted: {whole} are one plan; {cases} answers compared,"
        f" {sum(row['wrong'] for row in there)} wrong,",
        f"{ties} near ties ({ties / max(1, cases):.1%}). native: of the dynamic layers, how many run"
        " natively. engine off: its answers from PyTorch's (64: from float64's, where",
        "rounding grows), with gates that depend on the image, at the end of the schedule.",
    ]


def _line(row: dict[str, Any]) -> str:
    off = "-" if row["difference"] is None else f"{row['difference']:.1e}"
    before = row["parameters"] - row["gate_parameters"]
    yes = ["yes" if row[key] else "**no**" for key in ("step_finite", "kept", "bit_equal")]
    cells = [
        row["name"],
        f"{row['converted']}/{row['convolutions']}",
        f"{row['share']:.0%}",
        f"{row['dense'] / 1e6:,.0f}",
        f"{row['promised'] / 1e6:,.0f}",
        f"{row['gate_parameters'] / before:+.0%}",
        f"{row['apart']:.2g}{' (s)' if row['settled'] else ''}",
        off,
        *yes,
        *_engine_cells(row),
    ]
    return "| " + " | ".join(cells) + " |"


def _engine_cells(row: dict[str, Any]) -> list[str]:
    if "plan" not in row:
        return ["not tried", "", ""]
    plan = "whole" if row["plan"] == "whole" else f"{row['parts']} parts"
    off = "-" if row["native_off"] is None else f"{row['native_off']:.1e}"
    off += " (64)" if row["against_float64"] else ""
    off += f", {row['near_ties']} ties" if row["near_ties"] else ""
    off += f", **{row['wrong']} wrong**" if row["wrong"] else ""
    return [f"{row['native_layers']}/{row['dynamic_layers']}", plan, off]


def _open(row: dict[str, Any] | None, engine: bool) -> bool:
    """Whether there is something to do for a network."""
    return row is not None and "converted" in row and "plan" not in row if engine else row is None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", help="these alone, again")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no more after so long")
    parser.add_argument("--report", action="store_true")
    parser.add_argument(
        "--engine", action="store_true", help="the engine's columns, of rows that lack them"
    )
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = [name for family in MODELS.values() for name in family]
    wanted = given.only or [name for name in names if _open(rows.get(name), given.engine)]
    if given.engine:  # small ones first
        wanted.sort(key=lambda name: rows[name]["dense"])
    began = time.monotonic()
    for name in [] if given.report else wanted:
        if time.monotonic() - began > given.seconds:
            break
        rows[name] = engine_alone(rows[name]) if given.engine else tried(name)
        print(json.dumps(rows[name]), flush=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        gc.collect()
    REPORT.write_text(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
