"""The arithmetic under the charts, against slow and simple forms of the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgcctl.tui import raster
from dgcctl.tui.state import curves, feed


def slow_average(values: list[float], weight: float) -> list[float]:
    total = count = 0.0
    found = []
    for value in values:
        known = math.isfinite(value)
        total = total * weight + (value if known else 0.0)
        count = count * weight + known
        found.append(total / count if known else math.nan)
    return found


@pytest.mark.parametrize("weight", [0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [1, 7, 600, 5000])
def test_smoothing_is_the_bias_corrected_moving_average(weight: float, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    values[::17] = np.nan
    np.testing.assert_allclose(
        curves.smooth(values, weight), slow_average(values.tolist(), weight), rtol=1e-9
    )


def test_no_smoothing_returns_the_values_themselves() -> None:
    values = np.array([1.0, 5.0, math.nan])
    assert curves.smooth(values, 0.0) is values


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(2, 80))
def test_downsampling_keeps_the_lowest_and_the_highest_value(
    values: list[float], columns: int
) -> None:
    y = np.array(values)
    found = raster.spans(np.arange(len(y), dtype=float), y, 0.0, float(max(1, len(y) - 1)), columns)
    assert found.low.min() == y.min()
    assert found.high.max() == y.max()
    assert np.all(np.diff(found.at) == 1), "a line has no holes"
    assert found.at[0] >= 0
    assert found.at[-1] < columns


def test_neighbouring_spans_touch_so_that_a_jump_is_a_vertical_line() -> None:
    found = raster.spans(np.array([0.0, 1.0, 2.0]), np.array([0.0, 10.0, 0.0]), 0.0, 2.0, 3)
    assert found.low.tolist() == [0.0, 0.0, 0.0]
    assert found.high.tolist() == [0.0, 10.0, 10.0]


def test_a_value_that_is_no_number_is_marked_and_not_drawn() -> None:
    found = raster.spans(np.arange(4.0), np.array([1.0, math.nan, 1.0, math.inf]), 0.0, 3.0, 4)
    assert found.broken.tolist() == [1, 3]
    assert found.at.tolist() == [0, 1, 2]


def test_only_broken_values_make_an_empty_line() -> None:
    found = raster.spans(np.arange(2.0), np.array([math.nan, math.nan]), 0.0, 1.0, 4)
    assert len(found.at) == 0
    assert found.broken.tolist() == [0, 3]


def test_the_visible_part_reaches_one_point_past_each_edge() -> None:
    assert raster.visible(np.arange(10.0), 2.5, 5.5) == slice(2, 7)


def test_the_nearest_point_answers_for_a_place_between_two() -> None:
    x, y = np.array([0.0, 10.0]), np.array([1.0, 2.0])
    assert [raster.value_at(x, y, place) for place in (-5, 4, 6, 99)] == [1.0, 1.0, 2.0, 2.0]
    assert raster.value_at(np.empty(0), np.empty(0), 1.0) is None


def test_a_column_grows_and_is_cut_back() -> None:
    column = feed.GrowingArray()
    column.extend(range(1000))
    column.truncate(3)
    column.extend([7.0])
    assert column.view.tolist() == [0.0, 1.0, 2.0, 7.0]


def test_a_rising_line_is_drawn_from_the_lower_left_to_the_upper_right_dot() -> None:
    spans = raster.spans(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.0, 1.0, 8)
    bits = raster.cells(spans, 0.0, 1.0, 4, 2)
    drawn = {(column, row): character for column, row, character in raster.characters(bits)}
    assert drawn[0, 1] > "⡀", "dot 7, lower left"
    assert ord(drawn[3, 0]) & 0x08, "dot 4, upper right"
    assert (0, 0) not in drawn
    assert (3, 1) not in drawn


def test_dashes_leave_gaps_so_that_lines_differ_without_colour() -> None:
    flat = raster.spans(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 0.0, 1.0, 24)
    counts = [
        int(np.unpackbits(raster.cells(flat, 0.0, 1.0, 12, 3, dash)).sum()) for dash in range(3)
    ]
    assert counts[0] == 24
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0.31, 0.52, 4, [0.4, 0.5]),
        (0, 1, 0, []),
        (1, 1, 3, []),
        (-1, 1, 2, [-1, 0, 1]),
    ],
)
def test_ticks_are_round_numbers(
    low: float, high: float, count: int, expected: list[float]
) -> None:
    assert raster.ticks(low, high, count) == expected


def test_a_logarithmic_axis_shows_powers_of_ten_or_round_numbers_between_them() -> None:
    assert raster.log_ticks(-3.2, 1.1, 10) == [-3, -2, -1, 0, 1]
    assert [round(10**tick, 6) for tick in raster.log_ticks(0.1, 0.6, 3)] == [2, 3]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12345.0, "12.35k"),
        (2.5e6, "2.5M"),
        (0.00012, "1.2e-4"),
        (math.nan, "NaN"),
        (-math.inf, "-inf"),
        (9.125, "9.125"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert raster.short(value) == text


def test_zooming_in_halves_the_window_around_a_place_and_zooming_out_ends_at_all_there_is() -> None:
    assert curves.zoomed((0, 100), (0, 100), 50, True) == (25, 75)
    assert curves.zoomed((25, 75), (0, 100), 50, False) is None
    assert curves.zoomed((0, 100), (0, 100), 100, True) == (50, 100)
