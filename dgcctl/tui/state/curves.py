"""From runs and a view to the chart specs that charts draw: axes, smoothing, overlay, target. No
widget here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dgc.run import metrics
from dgcctl.core import numbers
from dgcctl.core.runs.listing import Run
from dgcctl.tui import raster
from dgcctl.tui.raster import Floats
from dgcctl.tui.state import machine
from dgcctl.tui.state.feed import Feed, Points
from dgcctl.tui.state.run_facts import Target
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import Axis
from dgcctl.tui.widgets.chart_spec import ChartSpec, Trace

_TITLES = {
    "eval.top1_error": "top-1 error", "eval.top5_error": "top-5 error",
    "perf.images_per_s": "images/s", "perf.cpu": "CPU %", "perf.rss": "memory, peak bytes",
    "perf.gpu_memory": "GPU memory, peak bytes", "perf.data_ms": "waiting for images, ms",
    **machine.TITLES,
}  # fmt: skip


ERROR = "eval.top1_error"


@dataclass(frozen=True)
class ChartOptions:
    """How all charts of a screen are drawn. `window` None: all there is."""

    axis: Axis = "step"
    weight: float = 0.0
    log: bool = False
    window: tuple[float, float] | None = None
    cursor: float | None = None
    theme: str = ""
    clip: bool = False


def previewed(store: Store, run: Run) -> tuple[str, str]:
    """The two metrics of a run that are shown beside each other in the list: its error and its
    loss, or what it has instead.
    """
    if "model.name" in run.recipe:
        return ERROR, "step.loss"
    names = [*store.feed(run.id).names(), "step.loss", ERROR]
    # a script's run may have neither: its first evaluation and whatever else there is
    first = next((name for name in names if name.startswith("eval.")), names[0])
    return first, next(name for name in names if name != first)


def target_of(run: Run) -> Target | None:
    """The error that its recipe expects."""
    return None if run.target is None else Target("top1_error", *run.target, source="recipe")


def default_metrics() -> tuple[str, ...]:
    """What has a chart unasked: the error, then what dgc.run.metrics says of the steps, with the
    speed at the fourth place.
    """
    steps = [f"step.{metric.name}" for metric in metrics.charts()]
    return ("eval.top1_error", *steps[:2], "perf.images_per_s", *steps[2:])


def title_of(name: str) -> str:
    steps = {f"step.{metric.name}": metric.title for metric in metrics.STEP_METRICS}
    return steps.get(name) or _TITLES.get(name, name)


def never_smoothed(name: str) -> bool:
    """Evaluations are few and exact, schedules are no measurements: smoothing them would hide what
    they say.
    """
    set_not_measured = {f"step.{m.name}" for m in metrics.STEP_METRICS if not m.smooth}
    return name.startswith(("eval.", "epoch.")) or name in set_not_measured


class Curves:
    """Makes chart specs; keeps smoothed columns until their run has more points."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._smoothed: dict[tuple[str, str], tuple[tuple[object, ...], Floats]] = {}

    def x_of(self, feed: Feed, points: Points, axis: Axis) -> Floats:
        """The points' places on an axis: steps, epochs (fractional) or seconds since the start."""
        if axis == "time":
            return points.seconds
        per_epoch = feed.steps_per_epoch
        return (
            points.step / per_epoch if axis == "epoch" and math.isfinite(per_epoch) else points.step
        )

    def extent(
        self, runs: Sequence[Run], metrics: Sequence[str], axis: Axis
    ) -> tuple[float, float]:
        """From 0 to the furthest point of any of the runs."""
        # not 0: a chart without points still has an axis to divide
        ends = [1e-9]
        for run in runs:
            feed = self._store.feed(run.id)
            for name in metrics:
                x = self.x_of(feed, self._store.points(run.id, name), axis)
                ends.append(float(x[-1]) if len(x) else 0.0)
        return 0.0, max(ends)

    def chart_spec(
        self,
        metric: str,
        runs: Sequence[Run],
        options: ChartOptions,
        extent: tuple[float, float],
        target: Target | None = None,
    ) -> ChartSpec:
        """One chart of one metric over several runs; the first run is the one in front."""
        traces, keys = [], []
        for run in runs:
            traces += self._traces(metric, run, options, raw=run is runs[0])
            keys.append((run.id, *self._state(run.id, metric)))
        window = options.window or extent
        empty = "reading the log" if self._reads(runs) else "no values yet"
        return ChartSpec(
            # Everything that changes the picture, and nothing else: a chart whose key is as
            # before is not drawn again, and most news change one chart of several.
            key=(metric, *keys, options, window, target, empty),
            title=title_of(metric),
            traces=traces,
            window=window,
            # a count of channels that may be 0 has no logarithm to show
            log=options.log and metric != "step.inactive",
            cursor=options.cursor,
            target=target.value if target else None,
            clip=options.clip,
            x_text=x_text(options.axis),
            x_ticks=x_ticks(options.axis),
            empty=empty,
        )

    def _reads(self, runs: Sequence[Run]) -> bool:
        """Whether a log is still to be read to its end."""
        unread = [run for run in runs if not self._store.feed(run.id).caught_up]
        # os.path: the log of a run that may not be looked into is not read
        return any(os.path.exists(run.dir.events) for run in unread)

    def _state(self, run_id: str, metric: str) -> tuple[object, ...]:
        """Changes where the points of a metric change."""
        feed = self._store.feed(run_id)
        points = self._store.points(run_id, metric)
        # the last point too: a resume can leave as many points as there were
        end = float(points.step[-1]) if len(points) else 0.0
        return (
            len(points),
            end,
            len(feed.resumes),
            id(feed),
            self._store.sign(run_id),
            feed.steps_per_epoch if feed.start else 0,
        )

    def _traces(self, metric: str, run: Run, options: ChartOptions, *, raw: bool) -> list[Trace]:
        """The line of a run; `raw` puts its values as they are behind the smoothed ones."""
        feed, sign = self._store.feed(run.id), self._store.sign(run.id)
        points = self._store.points(run.id, metric)
        x = self.x_of(feed, points, options.axis)
        if options.weight <= 0 or never_smoothed(metric):
            return [Trace(sign.letter, x, points.value, sign.colour)]
        smoothed = self._smooth(run.id, metric, points.value, options.weight)
        behind = [Trace(sign.letter, x, points.value, sign.colour, faint=True)] if raw else []
        line = Trace(sign.letter, x, smoothed, sign.colour, recorded=points.value)
        return [*behind, line]

    def _smooth(self, run_id: str, metric: str, values: Floats, weight: float) -> Floats:
        state = (weight, *self._state(run_id, metric))
        # smoothed anew only where the points or the weight changed: a frame has no time for more
        kept = self._smoothed.get((run_id, metric))
        if kept is None or kept[0] != state:
            kept = (state, smooth(values, weight))
            self._smoothed[run_id, metric] = kept
        return kept[1]


def smooth(values: Floats, weight: float) -> Floats:
    """Exponential moving average with bias correction (as TensorBoard draws it); NaN is stepped
    over.

    `weight` in [0, 1): 0 returns the values as they are. Vectorised in blocks, so that 100,000
    points take ~2 ms.
    """
    if weight <= 0 or len(values) == 0:
        return values
    finite = np.isfinite(values)
    sums = _decayed_sums(np.where(finite, values, 0.0), weight)
    counts = (
        _decayed_sums(finite.astype(np.float64), weight)
        if not finite.all()
        else _full_counts(len(values), weight)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        # before the first number there is nothing to average
        return np.where(finite, sums / counts, np.nan)


def _full_counts(length: int, weight: float) -> Floats:
    """The same for all ones: (1 - weight ** n) / (1 - weight), which soon is its limit."""
    counts = np.full(length, 1 / (1 - weight))
    # From there on weight ** n is below the last digit of a float64.
    early = min(length, int(-17 / math.log10(weight)) + 1)
    counts[:early] = (1 - weight ** np.arange(1.0, early + 1)) / (1 - weight)
    return counts


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """s[i] = values[i] + weight * s[i - 1]: cumulative sums of scaled values, in blocks too short
    to overflow.

    (A product with a triangular matrix would be as short, but wakes the threads of BLAS: 20 ms
    where this takes 2.)
    """
    # Within a block values are divided by weight ** i, down to 1e-6: enough to gain speed, and
    # far from where digits are lost.
    block = max(4, min(512, int(-6 / math.log10(weight))))
    blocks = -(-len(values) // block)
    padded = np.zeros(blocks * block)
    padded[: len(values)] = values
    scale = weight ** np.arange(block)
    sums = np.cumsum(padded.reshape(blocks, block) / scale, axis=1) * scale
    # What flows from block to block is one number each: a loop in Python over some hundred, where
    # a loop over the points would be a hundred thousand.
    ends, fade, carry = sums[:, -1].tolist(), weight**block, [0.0]
    for end in ends[:-1]:
        carry.append(end + fade * carry[-1])
    sums += np.array(carry)[:, None] * (scale * weight)
    return np.asarray(sums.reshape(-1)[: len(values)])


def x_text(axis: Axis) -> Callable[[float], str]:
    """How a place on an axis is written."""
    if axis == "time":
        return numbers.spaced_duration
    if axis == "epoch":
        return lambda value: f"epoch {value:.1f}"
    return lambda value: f"step {value:,.0f}"


def x_ticks(axis: Axis) -> Callable[[float, float, int], list[tuple[float, str]]]:
    """Round places on an axis with their texts."""
    if axis == "time":
        return lambda first, last, count: [
            (place, numbers.spaced_duration(place))
            for place in raster.time_ticks(first, last, count)
        ]
    write = "{:,.0f}" if axis == "step" else "{:g}"
    return lambda first, last, count: [
        # steps are whole: half of one is no place
        (place, write.format(place))
        for place in raster.ticks(first, last, count)
        if axis != "step" or place == int(place)
    ]


def zoomed(
    window: tuple[float, float], extent: tuple[float, float], centre: float, inward: bool
) -> tuple[float, float] | None:
    """The window half or twice as wide around `centre`, inside the extent; None where it is all
    there is.
    """
    width = (window[1] - window[0]) * (0.5 if inward else 2.0)
    whole = extent[1] - extent[0]
    # Back to all there is: a window of that width would stand still while the run grows.
    if width >= whole * 0.999:
        return None
    # What lies under the cursor stays there.
    share = (centre - window[0]) / ((window[1] - window[0]) or 1.0)
    first = min(max(extent[0], centre - width * share), extent[1] - width)
    return first, first + width


def table_at(
    curves: Curves, store: Store, runs: Sequence[Run], metrics: Sequence[str], axis: Axis
) -> Iterator[tuple[object, ...]]:
    """All points of the shown curves as rows: run, metric, axis value, value (for CSV). Made when
    asked for.
    """
    columns = []
    for run in runs:
        feed = store.feed(run.id)
        for metric in metrics:
            points = store.points(run.id, metric)
            columns.append((run.id, metric, curves.x_of(feed, points, axis), points.value))
    return (
        (name, metric, x, y)
        for name, metric, xs, ys in columns
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    )


def gap(value: float | None, target: Target | None) -> str:
    """` (gap +0.31)` between an error and its target."""
    return "" if value is None or target is None else f"gap {value - target.value:+.2f}"


def median(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def shorten(value: float | None) -> str:
    return "-" if value is None else raster.short(value)
