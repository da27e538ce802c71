"""The schedule of the paper: numbers from FACTS' formulas, worked out by hand."""

import pytest

from dgc.schedule import cosine, inactive_channels, multistep, progress


def test_progress_counts_batches():
    assert progress(0, 0, 300, 782) == 0.0
    assert progress(150, 0, 300, 782) == 0.5
    assert progress(299, 781, 300, 782) < 1


@pytest.mark.parametrize(
    ("p", "n"),
    [
        (0.0, 0),
        (1 / 12, 0),
        (0.0834, 0),
        (0.25, 12),
        (0.5, 30),
        (0.7499, 48),
        (0.75, 48),
        (0.99, 48),
    ],
)
def test_inactive_channels_of_64_at_a_quarter(p, n):
    assert inactive_channels(p, 64, 0.25) == n  # 48 * 1.5 * (p - 1/12) in between


@pytest.mark.parametrize(("channels", "kept"), [(64, 29), (128, 58), (256, 115), (512, 230)])
def test_final_number_at_45_percent(channels, kept):
    assert channels - inactive_channels(1.0, channels, 0.45) == kept


def test_never_decreases():
    numbers = [inactive_channels(step / 1000, 80, 0.25) for step in range(1000)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 61  # 0 to 60


def test_learning_rates():
    assert cosine(0.0, 0.1) == 0.1
    assert cosine(0.5, 0.1) == pytest.approx(0.05)
    assert cosine(1.0, 0.1) == pytest.approx(0, abs=1e-17)
    assert [
        multistep(epoch, 0.1, (150, 225)) for epoch in (0, 149, 150, 224, 225)
    ] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
