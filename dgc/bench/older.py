"""Reports of benchmarks from before they had one schema: what each kind looked like, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dgc.bench.named import NAMED, contender


class Found(NamedTuple):
    machine: dict[str, Any]
    rows: list[dict[str, Any]]  # fields of dgc.bench.rows.BenchRow
    beside: dict[str, Any]


def convert(document: Mapping[str, Any], benchmark: str) -> Found:
    """Rows of a report of version 1."""
    readers = {"inference": _inference, "training": _training, "dashboard": _dashboard, "gpu": _gpu}
    rows = list(readers[benchmark](document))
    own = {"schema_version", "machine", "cells", "figures"}
    beside = {key: value for key, value in document.items() if key not in own}
    return Found(dict(document.get("machine", {})), rows, beside)


def _inference(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, cell in enumerate(document.get("cells", [])):
        common = {
            "benchmark": "inference", "run": f"older-{number}",
            **{key: cell[key] for key in ("network", "batch", "threads")},
        }  # fmt: skip
        times = cell["ms_per_image"]
        dense = times.get("dense_eager", {}).get("median")
        for name, found in times.items():
            ratio = found["median"] / dense if dense else None
            yield {
                **common, **contender(name), "n": found["n"], "median": found["median"],
                "low": found["low"],
                "high": found["high"], "ratio": ratio, "ratio_to": "dense_eager" if dense else None,
            }  # fmt: skip
        for name, why in cell.get("missing", {}).items():
            yield {**common, **contender(name), "why_not": why}


def _training(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    machine = document.get("machine", {})
    for number, cell in enumerate(document.get("cells", [])):
        # at first the ways stood in the cell itself
        ways = cell.get("ways") or {k: v for k, v in cell.items() if k in NAMED}
        common = {
            "benchmark": "training", "run": f"older-{number}", "network": cell["network"],
            "batch": cell["batch"], "threads": cell.get("threads", machine.get("threads")),
            "unit": "s/step", "spread": "range",
        }  # fmt: skip
        for name, found in ways.items():
            seconds, (low, high) = found["seconds_all"], found["time_ratio_range"]
            fields = contender(name)
            more = {key: found[key] for key in ("saved_mb_per_sample", "peak_mb") if key in found}
            yield {
                **common, **fields, "n": cell["n"], "median": found["seconds_median"],
                "low": min(seconds), "high": max(seconds), "values": tuple(seconds),
                "ratio": found["time_ratio"], "ratio_low": low, "ratio_high": high,
                "ratio_to": "dense",
                "more": {"progress": cell["progress"], **fields["more"], **more},
            }  # fmt: skip
        for name, why in cell.get("failed", {}).items():
            fields = contender(name)
            more = {"progress": cell["progress"], **fields["more"]}
            yield {**common, **fields, "why_not": why, "more": more}


def _dashboard(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for figure in document.get("figures", []):
        yield {
            "benchmark": "dashboard", "name": figure["question"], "spread": "worst",
            "high": figure["worst"],
            **{key: figure[key] for key in ("unit", "n", "median", "bar", "passed", "note")},
        }  # fmt: skip


def _gpu(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What dgc.bench.gpu writes, which is to run where torch and numpy are all there is."""
    for row in document.get("rows", []):
        given = {key: row[key] for key in ("network", "batch", "precision")}
        common = {
            "benchmark": "gpu",
            "name": row["way"],
            "device": "cuda",
            "unit": "ms/step",
            **given,
        }
        more = {key: row[key] for key in ("mode", "progress", "peak_mb", "launches") if key in row}
        yield {
            **common, "run": str(row.get("run", "1")), "n": row.get("n", 0),
            "median": row.get("ms"),
            "low": row.get("least"), "high": row.get("most"), "spread": "range",
            "why_not": row.get("error"), "more": more,
        }  # fmt: skip
