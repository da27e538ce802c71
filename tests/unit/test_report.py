"""The report: one page that needs nothing else, with what was measured and nothing made up."""

import re
import struct
from html.parser import HTMLParser

import pytest

import dgc
from dgc.run.events import EventKind, encode_event
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgcctl.core.report import plots, run_view
from dgcctl.core.report.build import write_report
from dgcctl.core.report.run_view import binned, short_names, views
from dgcctl.core.runs import labels
from dgcctl.core.runs.record import read_record
from tests.unit.run_factory import make_run

LAYERS = ["features.block_1.layer_1.conv_1", "features.block_2.layer_1.conv_1"]


def with_gates(run):
    """Two gate maps, a model with layers, an environment and a verdict."""
    run.gates.mkdir()
    for epoch in range(2):
        layers = [gate_layer(name, epoch) for name in LAYERS]
        write_json(
            run.gates / f"epoch-{epoch + 1:04d}.json",
            {"epoch": epoch + 1, "step": 3 * epoch + 3, "layers": layers},
        )
    rows = [{"name": name, "dense": 4e6, "promised": 1e6, "executed": 1.2e6} for name in LAYERS]
    write_json(run.model, {**read_json(run.model), "layers": rows})
    return run


def gate_layer(name, epoch):
    heads = [
        {"active_share": 0.25 + head / 10, "entropy": 0.5, "most": [], "least": []}
        for head in range(4)
    ]
    macs = {
        "dense_macs": 4_000_000,
        "promised_macs": 1_000_000,
        "executed_macs": 3_000_000 - epoch * 1_500_000,
    }
    return {"name": name, "in_channels": 16, "n_inactive": 6 * epoch, "heads": heads, **macs}


@pytest.fixture
def runs(tmp_path):
    forms = ("dgc", "dense")
    made = [
        make_run(tmp_path / f"2026-{form}-{seed}", f"model.form={form}", f"seed={seed}")
        for form in forms
        for seed in (0, 1)
    ]
    for run in made[:2]:
        with_gates(run)
    return [read_record(run) for run in made]


class Page(HTMLParser):
    """Tags, what they load, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "use", "path", "link", "br", "img", "input"):
            self.open.append(tag)
        self.loads += [
            value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset")
        ]

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text += data


def test_the_page_loads_nothing_and_runs_nothing(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert all(load.startswith(("#", "data:")) for load in page.loads), page.loads
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "@import" not in text
    assert not re.search(r"url\((?!#|['\"]?#|['\"]?data:)", text)
    assert page.tags.count("svg") == 4


def test_every_id_of_the_inlined_pictures_is_its_own(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    clips = re.findall(r'<clipPath id="([^"]+)"', text)
    assert clips
    assert len(clips) == len(set(clips))


def test_result_is_mean_and_deviation_over_seeds(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    values = [run.metrics["top1_error"] for run in runs[:2]]
    mean = sum(values) / 2
    deviation = (sum((value - mean) ** 2 for value in values)) ** 0.5
    assert f"{mean:.2f} ± {deviation:.2f}" in page.text
    assert "form dgc" in page.text
    assert "form dense" in page.text
    assert "4 runs of 2 recipes" in page.text


def test_a_missed_figure_is_called_missed(tmp_path):
    run = make_run(tmp_path / "a")
    row = {
        "metric": "top1_error",
        "value": 40.0,
        "expected": 4.77,
        "tolerance": 0.3,
        "source": "paper <1>",
        "passed": False,
    }
    write_json(run.verdict, {"verdicts": [row]})
    write_report([read_record(run)], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "missed" in page.text
    assert "≤ 4.77 + 0.30" in page.text
    assert "paper <1>" in page.text
    assert "on 30 images" not in page.text


def test_a_figure_of_some_images_alone_says_of_how_many(tmp_path):
    run = make_run(tmp_path / "a", "data.limit_val=30")
    row = {"metric": "top1_error", "value": 5.1, "expected": 4.77, "tolerance": 0.3, "source": "x"}
    write_json(run.verdict, {"verdicts": [row]})
    write_json(run.data, {**read_json(run.data), "val": {"samples": 30}})
    write_report([read_record(run)], tmp_path / "report.html")
    assert "5.10 on 30 images" in Page((tmp_path / "report.html").read_text()).text


def test_without_an_expected_figure_there_is_no_verdict(tmp_path):
    write_report([read_record(make_run(tmp_path / "a", "expect=[]"))], tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text()).text
    assert "No figure was expected." in text
    assert "reached" not in text


def test_a_title_cannot_write_into_the_page(tmp_path):
    run = make_run(tmp_path / "a", 'title="<script>alert(1)</script>"')
    write_report([read_record(run)], tmp_path / "report.html")
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_pictures_are_files_too(runs, tmp_path):
    files = write_report(runs, tmp_path / "report.html", tmp_path / "plots")
    names = sorted(path.name for path in files[1:])
    assert names == sorted(
        f"{name}.{kind}"
        for name in ("curves", "pruning", "gates-0", "macs")
        for kind in ("svg", "png")
    )
    for path in files[1:]:
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", data[16:24])
            assert width > 1000
            assert height > 150
        else:
            assert data.startswith(b"<svg")


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    write_report(runs, tmp_path / "a.html", tmp_path / "a")
    write_report(runs, tmp_path / "b.html", tmp_path / "b")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a" / "curves.svg").read_bytes() == (
        tmp_path / "b" / "curves.svg"
    ).read_bytes()


def test_what_the_reader_must_know_is_in_the_notes(tmp_path):
    run = make_run(tmp_path / "a")
    with run.events.open("ab") as log:
        log.write(encode_event(EventKind.RESUME, {"step": 6, "exact": False}))
        log.write(
            encode_event(EventKind.ALERT, {"level": "warning", "text": "2 files quarantined"})
        )
    (view,) = views([read_record(run)])
    assert view.notes == ["2 files quarantined", "resumed 1 time, NOT exactly"]


# --- series ---------------------------------------------------------------------------------------


def test_bins_keep_mean_and_extremes():
    rows = [{"kind": "step", "step": step, "loss": float(step)} for step in range(1, 101)]
    series = binned(rows, "loss", lambda row: row["step"], 10)
    assert len(series.x) == 10
    assert (series.mean[0], series.low[0], series.high[0]) == (5.5, 1.0, 10.0)
    assert (series.low[-1], series.high[-1]) == (91.0, 100.0)


def test_a_nan_in_the_log_is_a_gap_and_not_a_zero():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 4.0}]
    assert binned(rows, "loss", lambda row: row["step"], 10).mean == [2.0, 4.0]


def test_macs_and_channels_follow_the_gate_maps(tmp_path):
    (view,) = views([read_record(with_gates(make_run(tmp_path / "a")))])
    assert run_view.mac_progress(view)["executed"].mean == [0.75, 0.375]
    assert run_view.mac_progress(view)["promised"].mean == [0.25, 0.25]
    assert run_view.inactive_share(view).mean == [step / 32 for step in range(1, 7)]


def test_layer_names_lose_what_they_share():
    assert short_names(LAYERS) == ["block_1", "block_2"]
    assert short_names(["a.b", "a.c", "d"]) == ["a.b", "a.c", "d"]
    assert short_names(["one"]) == ["one"]


def test_heads_are_counted_from_0_as_predict_and_the_dashboard_do(tmp_path):
    (view,) = views([read_record(with_gates(make_run(tmp_path / "2026-demo-a")))])
    panel = plots.gate_map(view).figure.axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("values", [2, 11])
def test_a_legend_stays_in_its_picture_and_tells_groups_apart(tmp_path, values):
    """Of more groups than colours none looks like another."""
    for lr in range(values):
        config = {"lr": lr / 7, "a_rather_long_name_of_a_value": lr, "x": "y" * 20 * (lr + 1)}
        with dgc.run.start("own", config, runs_dir=tmp_path) as run:
            run.log(1, loss=1.0)
            run.log(2, loss=0.5)
    records = [read_record(RunDir(path)) for path in sorted(tmp_path.iterdir())]
    figure = plots.curves(views(records)).figure
    figure.draw_without_rendering()
    assert all(ax.get_window_extent().height > 60 for ax in figure.axes if ax.axison)
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    lines = legend.get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == values


def test_the_page_says_settings_tags_and_what_a_person_wrote(tmp_path):
    run = make_run(tmp_path / "a")
    with dgc.run.start("own", {"lr": 0.25, "net": {"width": 8}}, runs_dir=tmp_path) as script:
        script.log(1, loss=1.0)
    text = written([run, script.dir], tmp_path)
    assert "optim.lr=0.1" in text
    assert "lr=0.25  net.width=8" in text
    assert "what to know" in text
    assert "a promising one" not in text
    labels.note(run, "a promising one <b>")
    labels.tag(run, ["good"])
    text = written([run, script.dir], tmp_path)
    assert "a promising one &lt;b&gt;" in text
    assert " good<" in text


def written(runs, folder):
    write_report([read_record(run) for run in runs], folder / "report.html")
    return (folder / "report.html").read_text()
