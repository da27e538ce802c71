"""The pictures of a report, drawn by matplotlib without its global state. Small multiples on common
axes.

One colour is one group of runs (same recipe but for the seed); a thin line is one run. A curve is
the mean of each bin of steps; where there is one run only, the band behind it is the bin's range.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dgc.run import metrics
from dgcctl.core.report.run_view import RunView, Series, inactive_share, mac_progress, short_names

# Okabe and Ito's palette: told apart by colour-blind readers, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a name is a letter
}


_DASHES = ("-", "--", ":", "-.")
_ACROSS = 118  # letters of a legend beside one another in a picture


@dataclass(frozen=True)
class Plot:
    """One picture: a name for its file, what it shows, and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """SVG without XML prologue;
        ids are unlike those of other pictures, so that many fit into one page.
        """
        buffer = io.StringIO()
        with mpl.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            # hashsalt: ids by the plot's name, so that the
            # same run gives the same bytes; no date either
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        return text[text.index("<svg") :]

    def png(self) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(_STYLE):
            # the name of the drawing library is no fact of the run
            self.figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()


def plots(views: Sequence[RunView]) -> list[Plot]:
    """Every picture that these runs have something for."""
    with mpl.rc_context(_STYLE):
        found = [
            curves(views),
            pruning(views),
            *(gate_map(view) for view in gate_views(views)),
            layer_costs(views),
        ]
        return [plot for plot in found if plot is not None]


def colour(group: int) -> str:
    # more groups than colours: they come round again, dashed
    return COLOURS[group % len(COLOURS)]


def _dashes(group: int) -> str:
    return _DASHES[group // len(COLOURS) % len(_DASHES)]


# --- curves ---------------------------------------------------------------------------------------


def curves(views: Sequence[RunView]) -> Plot | None:
    """Validation error with the target, then the metrics of the training steps."""
    panels: list[tuple[str, Callable[[RunView], Series]]] = [
        ("top-1 error on held-out images, %", lambda view: view.val_error),
        *((title, partial(_of_steps, metric.name)) for metric, title in metrics.reported()),
    ]
    # a metric that no run has would be an empty frame
    panels = [panel for panel in panels if any(panel[1](view).x for view in views)]
    if not panels:
        return None
    figure = Figure(figsize=(9.6, 2.7 * -(-len(panels) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flat
    # panels may leave the last place empty: strict=False, and it is hidden below
    for ax, (title, pick) in zip(axes, panels, strict=False):
        _draw(ax, views, pick, title)
    for ax in list(axes)[len(panels) :]:
        ax.set_axis_off()
    _target(axes[0], views)
    _legend(figure, views)
    caption = (
        "One thin line is one run; a colour (with its dashes) is one recipe, whatever its seed."
    )
    single = " The band is the range within a bin of steps." if len(views) == 1 else ""
    return Plot("curves", "Training", caption + single, figure)


def _of_steps(name: str, view: RunView) -> Series:
    return view.steps[name]


def _draw(ax: Any, views: Sequence[RunView], pick: Callable[[RunView], Series], title: str) -> None:
    for view in views:
        series = pick(view)
        # of few points each is shown: a line alone would hide how few there are
        few = len(series.x) <= 40
        ax.plot(
            series.x,
            series.mean,
            color=colour(view.group),
            ls=_dashes(view.group),
            lw=1.3,
            marker="o" if few else None,
            ms=2.6,
            alpha=0.85,
        )
        if len(views) == 1 and not few:
            ax.fill_between(
                series.x, series.low, series.high, color=colour(view.group), alpha=0.16, lw=0
            )
    ax.set_title(title)
    _epochs(ax)
    ax.set_ylim(bottom=0)


def _epochs(ax: Any) -> None:
    ax.set_xlabel("epoch")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _target(ax: Any, views: Sequence[RunView]) -> None:
    """The published or expected error, and its tolerance."""
    # a set: runs of one recipe expect the same
    seen = {
        (e["value"], e["tolerance"])
        for view in views
        for e in expectations(view)
        if e["metric"] == "top1_error"
    }
    for value, tolerance in seen:
        ax.axhline(value, color="#333333", lw=1, ls=(0, (4, 3)))
        ax.axhspan(value - tolerance, value + tolerance, color="#333333", alpha=0.07, lw=0)
        _say(ax, f"expected {value:g} ± {tolerance:g}", value)


def _say(ax: Any, text: str, height: float) -> None:
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    # a curve may run where the words stand
    ground = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.0}
    ax.annotate(text, (0.99, height), fontsize=7.5, color="#333333", bbox=ground, zorder=5, **place)


def expectations(view: RunView) -> Sequence[dict[str, Any]]:
    return view.facts.recipe.get("expect") or ()


def _legend(figure: Figure, views: Sequence[RunView]) -> None:
    labels = {view.group: view.label for view in views}
    if len(labels) < 2:
        return
    handles = [
        mpl.lines.Line2D([], [], color=colour(group), ls=_dashes(group), lw=2) for group in labels
    ]
    names = [_shortened(label) for label in labels.values()]
    # as many beside one another as the widest leaves room for
    beside = max(1, min(4, len(names), _ACROSS // (max(map(len, names)) + 6)))
    # room of its own: many rows would leave the curves none
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(names) // beside))
    figure.legend(handles, names, loc="outside upper left", ncols=beside)


def _shortened(label: str) -> str:
    """Cut, and seen to be cut, where it would leave the picture."""
    return label if len(label) <= _ACROSS - 6 else label[: _ACROSS - 9] + "..."


# --- pruning --------------------------------------------------------------------------------------


def pruning(views: Sequence[RunView]) -> Plot | None:
    """How many channels are off, and what the dynamic layers cost, over the training."""
    shown = gate_views(views)
    if not shown:
        return None
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    for view in shown:
        off, shares = inactive_share(view), mac_progress(view)
        left.plot(off.x, off.mean, color=colour(view.group), lw=1.3)
        for kind, dashes in (("executed", "-"), ("promised", (0, (3, 2)))):
            line = {"color": colour(view.group), "lw": 1.3, "ls": dashes, "label": kind}
            right.plot(shares[kind].x, shares[kind].mean, marker="o", ms=2.6, **line)
    left.set_title("share of input channels switched off")
    right.set_title("MACs of the dynamic layers, as a share of dense ones")
    for ax in (left, right):
        # a share is drawn to 1 even where little was pruned, so that plots compare
        ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
        _epochs(ax)
    handles, names = right.get_legend_handles_labels()
    right.legend(handles[:2], names[:2], loc="lower left")
    caption = (
        "Executed counts what is really multiplied, gates included; promised is the authors'"
        " counter."
    )
    return Plot("pruning", "Pruning progress", caption, figure)


def gate_views(views: Sequence[RunView]) -> list[RunView]:
    """One run of each group that recorded gate maps: the first."""
    # gate maps of one seed stand for all: a mean over them would show no run
    first: dict[int, RunView] = {}
    for view in views:
        if view.gates:
            first.setdefault(view.group, view)
    return list(first.values())


# --- gate maps ------------------------------------------------------------------------------------


def gate_map(view: RunView) -> Plot:
    """Layer by head: share of channels in use, and how evenly they are used."""
    layers = view.gates[-1]["layers"]
    heads = max(len(layer["heads"]) for layer in layers)
    figure = Figure(figsize=(9.6, 1.1 + 0.24 * len(layers)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, key, title in zip(panels, ("active_share", "entropy"), _GATE_TITLES, strict=True):
        image = ax.imshow(_cells(layers, key, heads), aspect="auto", cmap="viridis", vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(heads), [str(head) for head in range(heads)])
        ax.set_xlabel("head")
        ax.grid(False)
        _numbers(ax, layers, key)
        figure.colorbar(image, ax=ax, shrink=0.9, pad=0.01)
    panels[0].set_yticks(
        range(len(layers)), short_names([layer["name"] for layer in layers]), fontsize=7.5
    )
    epoch, who = int(view.gates[-1].get("epoch", 0)), view.facts.id
    caption = f"Run {who}, after epoch {epoch}. {_GATE_CAPTION}"
    return Plot(f"gates-{view.group}", f"Gate map: {view.label}", caption, figure)


_GATE_TITLES = ("share of channels active, mean over images", "entropy of the choice")
_GATE_CAPTION = (
    "Left: the share of its input channels that a head uses for an image. Right: bits a channel; 0"
    " where each channel is used for all images or for none (the choice ignores the image), 1 where"
    " each is used for half of them."
)


def _cells(layers: Sequence[dict[str, Any]], key: str, heads: int) -> list[list[float]]:
    nothing = float("nan")
    rows = [[head.get(key, nothing) for head in layer["heads"][:heads]] for layer in layers]
    return [row + [nothing] * (heads - len(row)) for row in rows]


def _numbers(ax: Any, layers: Sequence[dict[str, Any]], key: str) -> None:
    for row, layer in enumerate(layers):
        for column, head in enumerate(layer["heads"]):
            value = float(head.get(key) or 0.0)
            # the colour map is dark below
            tone = "black" if value > 0.6 else "white"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=tone)


# --- costs ----------------------------------------------------------------------------------------


def layer_costs(views: Sequence[RunView]) -> Plot | None:
    """MACs by layer: what a dense twin takes, what is promised, what is executed."""
    shown = [view for view in gate_views(views) if view.facts.model.get("layers")]
    if not shown:
        return None
    # layers that cost nothing would only make the picture long
    rows = [row for row in shown[0].facts.model["layers"] if row.get("dense")]
    figure = Figure(figsize=(9.6, 1.0 + 0.2 * len(rows)), layout="constrained")
    ax = figure.subplots()
    places = range(len(rows))
    ax.barh(
        places, [row["dense"] / 1e6 for row in rows], height=0.8, color="#dddddd", label="dense"
    )
    ax.barh(
        places,
        [row["executed"] / 1e6 for row in rows],
        height=0.42,
        color=COLOURS[0],
        label="executed",
    )
    promised = [row["promised"] / 1e6 for row in rows]
    ax.scatter(
        promised, places, marker="|", s=70, color="#000000", lw=1.4, label="promised", zorder=3
    )
    ax.set_yticks(places, short_names([row["name"] for row in rows]), fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("million MACs for one image")
    ax.legend(loc="lower right")
    caption = f"{shown[0].label}, at the end of the schedule."
    return Plot("macs", "MACs by layer", caption, figure)
