"""A data set of the user's own that is not quite one: each fault is one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dgc.data import own
from dgc.data.image_sets import ImageSet, View
from dgc.errors import DataError

IMAGE = np.zeros((8, 8, 3), np.uint8)


class Pictures:
    """Two images; what is given stands in place of what it would have."""

    def __init__(self, **given: Any) -> None:
        self.labels: Any = [0, 1]
        vars(self).update(given)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return IMAGE


def opened(made: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[ImageSet, ImageSet, Any]:
    monkeypatch.setattr("dgc.run.trusted_code.load", lambda *_: lambda split: made)
    view = View("none", 8, 0, 8)
    return own.open_own("python:mine.images:f", {}, (view, view), (None, None), 2)


def fails() -> str:
    raise RuntimeError("no\nkey")


@pytest.mark.parametrize("classes", [np.array(["a", "b"]), ("a", "b"), ["a", "b"]])
def test_names_of_classes_may_be_any_sequence(
    classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened(Pictures(classes=classes), monkeypatch)[2] == ("a", "b")


@pytest.mark.parametrize("classes", [None, (), np.array([])])
def test_without_names_classes_are_numbered(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(Pictures(classes=classes), monkeypatch)[2] == ("0", "1")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Pictures(classes=5), "TypeError: 'int' object is not iterable"),
        (([IMAGE, IMAGE[1:]], [0, 1]), "ValueError: setting an array element"),
        ((np.stack([IMAGE, IMAGE]), [0, 1.5]), "gives tuple, and should give (images, labels)"),
        (Pictures(labels="ab"), "gives Pictures, and should give (images, labels)"),
    ],
)
def test_what_is_no_data_set_is_one_line(
    made: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError) as caught:
        opened(made, monkeypatch)
    line = str(caught.value)
    assert line.startswith("python:mine.images:f")
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("digest", "said"),
    [(fails, "RuntimeError: no key"), (lambda: "\udc80", "UnicodeEncodeError: 'utf-8'")],
)
def test_a_digest_that_fails_is_one_line(
    digest: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = opened(Pictures(digest=digest), monkeypatch)[0]
    assert isinstance(images, own.OwnSet)
    with pytest.raises(DataError) as caught:
        images.digest()
    assert str(caught.value).startswith("python:mine.images:f train: digest(): ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
