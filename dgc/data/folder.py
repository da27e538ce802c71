"""Image folders: DIR/{train,val}/<class>/..., the layout of ImageNet. Finds the images; reads none.

Names are as the file system gives them; what goes into a message or a record is `names.written` of
them.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dgc.errors import DataError
from dgc.run.class_folders import is_litter, verify_command, wrong_number
from dgc.run.file_names import unwritten, written
from dgc.runtime.image_file import UNREAD_PICTURES, extensions

SPLITS = ("train", "val")
OTHER_NAMES = {
    "train": ("training", "Train"),
    "val": ("valid", "validation", "test", "Val", "Valid", "Test"),
}
LITTER = "left by other systems"


class Problem(NamedTuple):
    """A file or folder that cannot be used (its name relative
    to the data folder, as `written`), and why.

    `structural`: it is about the folders themselves, which no list of files to leave out can mend.
    """

    file: str
    reason: str
    structural: bool = False

    def told(self) -> dict[str, str]:
        """As a row of an answer."""
        return {"file": self.file, "reason": self.reason}


@dataclass
class Listing:
    """The images of one split: names relative to the data folder,
    `/` between the parts, sorted; and their classes.

    `skipped` counts the other files by extension, and those that other systems leave behind
    (`LITTER`).
    """

    root: Path
    split: str
    quarantine: frozenset[str] = frozenset()
    classes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def problem(self, name: str, reason: str, *, structural: bool = False) -> None:
        if name in self.quarantine:
            self.quarantined.append(name)
        else:
            self.problems.append(Problem(written(name), reason, structural))


def scan(root: Path, split: str, quarantine: frozenset[str] = frozenset()) -> Listing:
    """List a split; everything that is wrong
    with its folders is in `problems`, nothing is raised.
    """
    listing = Listing(root, split, quarantine)
    # What a link further down must not lead back to.
    above = _identity(root), _identity(root / split)
    folders = [entry.name for entry in _entries(listing, split) if _is_dir(listing, entry, split)]
    if not folders and not listing.problems:
        where = f"{written(str(root))}/{split}"
        listing.problem(
            split,
            f"no class folder in it: images are expected at {where}/<class>/<image>.jpg",
            structural=True,
        )
    for name in folders:
        listing.classes.append(name)
        # what is left out or cannot be used counts too: such
        # a folder is not empty, and is told of elsewhere
        before, skipped = _found(listing), listing.skipped.copy()
        for image in _walk(listing, f"{split}/{name}", above):
            if image in quarantine:
                listing.quarantined.append(image)
            else:
                listing.names.append(image)
                listing.labels.append(len(listing.classes) - 1)
        if _found(listing) == before:
            others = _pictures(listing.skipped - skipped)
            # a folder of pictures that nobody here can read
            # is no empty one, and the user should see which
            instead = f" ({others} that cannot be read here)" if others else ""
            listing.problem(
                f"{split}/{name}",
                f"0 images in this class folder{instead}: fill it or remove it",
                structural=True,
            )
    return listing


def _found(listing: Listing) -> int:
    return len(listing.names) + len(listing.quarantined) + len(listing.problems)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        facts = folder.stat()
    except OSError:
        return 0, 0  # whoever lists it says why
    return facts.st_dev, facts.st_ino


def _entries(listing: Listing, name: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(listing.root / name) as entries:
            # By bytes: sorting by a locale would give the classes other labels on another
            # machine.
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        listing.problem(
            name,
            f"cannot list this folder ({os.strerror(error.errno or 0)}){_instead(listing, name)}",
            # a class folder (train/x) is structural, what lies deeper is a file's matter
            structural=name.count("/") < 2,
        )
        return []


def _instead(listing: Listing, name: str) -> str:
    """For a half that is not there: the folder that may be meant."""
    if name != listing.split or (listing.root / name).exists():
        return ""
    try:
        there = sorted(entry.name for entry in os.scandir(listing.root) if entry.is_dir())
    except OSError:
        return ""
    for other in OTHER_NAMES[name]:
        if other in there:
            return (
                f"; there is {other}: rename it to {name}, or link it: `ln -s {other} {name}` in"
                " that folder"
            )
    if not set(SPLITS) & set(there) and any(_holds_images(listing.root / one) for one in there):
        return (
            f"; the class folders lie directly in {written(str(listing.root))}: move them to train/"
            " and hold some images of each back in val/"
        )
    shown = ", ".join(written(one) for one in there if not is_litter(one))
    return f"; found there: {shown[:200]}" if shown else "; that folder holds no other"


def _holds_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_is_image(entry.name) and not is_litter(entry.name) for entry in entries)
    except OSError:
        return False


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_image(name: str) -> bool:
    return _extension(name) in extensions()


def _pictures(skipped: Counter[str]) -> str:
    """`40 .heic, 2 .svg files`: pictures among what was passed over; empty where there are none."""
    found = [
        f"{count:,} {kind}" for kind, count in sorted(skipped.items()) if kind in UNREAD_PICTURES
    ]
    return f"{', '.join(found)} files" if found else ""


def notes(quarantined: Sequence[str], skipped: Counter[str]) -> list[tuple[str, str]]:
    """(level, line) of what is not trained on, for the start of a run."""
    said = []
    if quarantined:
        files = "1 file is" if len(quarantined) == 1 else f"{len(quarantined):,} files are"
        said.append(("warning", f"{files} left out, as data.quarantine says"))
    if pictures := _pictures(skipped):
        said.append(
            (
                "warning",
                (
                    f"{pictures} are passed over: they cannot be read here; convert them to .png or"
                    " .jpg"
                ),
            )
        )
    others = {
        kind: n for kind, n in skipped.items() if kind not in UNREAD_PICTURES and kind != LITTER
    }
    if others:
        count = sum(others.values())
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(others.items()))
        text = f"{count:,} files are passed over" if count > 1 else "1 file is passed over"
        said.append(("warning", f"{text}, as no image's name ends so: {kinds}"))
    if skipped[LITTER]:
        said.append(
            (
                "info",
                (
                    f"{skipped[LITTER]:,} files passed over that other systems left (._*,"
                    " .DS_Store, ...)"
                ),
            )
        )
    return said


def _is_dir(listing: Listing, entry: os.DirEntry[str], name: str) -> bool:
    """Whether an entry of folder `name` is a folder.
    A link to itself is a problem, unless its name is an image's.
    """
    if is_litter(entry.name):
        listing.skipped[LITTER] += 1
        return False
    # hidden folders (.git, .ipynb_checkpoints) are nobody's
    # class; what is called like an image is looked at
    if entry.name.startswith(".") and not _is_image(entry.name):
        return False
    try:
        return entry.is_dir()
    except OSError as error:
        if not _is_image(entry.name):  # an image is reported where it is read
            listing.problem(
                f"{name}/{entry.name}", f"cannot be followed ({os.strerror(error.errno or 0)})"
            )
        return False


def _walk(listing: Listing, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    here = _identity(listing.root / name)
    # By device and inode, for a link may lead here under any name. (Two links to one folder
    # beside each other are fine: its images are there twice, as asked.)
    if here in above:
        # told, not skipped: a loop of links is a mistake that the user wants to know of
        listing.problem(name, "a symbolic link that leads back to a folder above it")
        return
    for entry in _entries(listing, name):
        inner = f"{name}/{entry.name}"
        if _is_dir(listing, entry, name):
            yield from _walk(listing, inner, (*above, here))
        elif _is_image(entry.name) and not is_litter(entry.name):
            yield inner
        elif not is_litter(entry.name):
            listing.skipped[_extension(entry.name) or "without extension"] += 1


def raise_problems(listings: Sequence[Listing]) -> None:
    """Raise DataError with the first problem and the number of the others."""
    problems = [(listing.root, problem) for listing in listings for problem in listing.problems]
    if not problems:
        return
    # the first one is enough to act on, and the command names them all
    root, (file, reason, _) = problems[0]
    more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
    # `data verify` wants both halves; a single folder of classes (`eval --data-dir`) has none
    both = all(listing.split in SPLITS for listing in listings)
    hint = f"; `{verify_command(root)}` lists all that is wrong" if both else ""
    raise DataError(f"{written(str(root))}/{file}: {reason}{more}{hint}")


def check_classes(root: Path, train: list[str], val: list[str], num_classes: int | None) -> None:
    """Raise DataError where the splits name different classes,
    or not as many as the network has.
    """
    where = written(str(root))
    if train != val:
        sides = (("train", set(train) - set(val)), ("val", set(val) - set(train)))
        odd = "".join(f"; only in {side}: {_some(names)}" for side, names in sides if names)
        raise DataError(
            f"{where}: train has {len(train)} classes and val {len(val)}{odd}: each class needs"
            " both"
        )
    if num_classes is not None and len(train) != num_classes:
        raise wrong_number(root, len(train), num_classes)


def _some(names: set[str]) -> str:
    # five names fit a line; a set has no order, so they are sorted
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(_told_apart, sorted(names)[:5])) + more


def _told_apart(name: str) -> str:
    """In quotes where blanks at an end, in escapes where accents of two spellings look the same."""
    text = written(name)
    if unicodedata.normalize("NFC", text) != text or unicodedata.normalize("NFD", text) != text:
        return ascii(text)
    return text if text == text.strip() else repr(text)


def check_left(listings: Sequence[Listing]) -> None:
    """Raise DataError where the quarantine leaves a class, or a whole split, without an image."""
    for listing in listings:
        left, out = len(listing.names), len(listing.quarantined)
        where = f"{written(str(listing.root))}/{listing.split}"
        if not left:
            raise DataError(
                f"{where}: data.quarantine leaves out all of its {out} files: nothing is left"
                " to use"
            )
        labels = set(listing.labels)
        empty = {name for label, name in enumerate(listing.classes) if label not in labels}
        if empty:
            raise DataError(
                f"{where}: data.quarantine leaves out {out} files ({left} are left), and so every"
                f" image of {_some(empty)}: put good images there, or remove the class from train"
                " and val"
            )


def same_halves(root: Path) -> list[str]:
    """A warning where train and val are one folder, under two names."""
    if _identity(root / "train") != _identity(root / "val"):
        return []
    return [
        f"{written(str(root))}: train and val are the same folder, so errors are those of images"
        " that the network was trained on"
    ]


# --- the quarantine file --------------------------------------------------------------------------


def read_quarantine(file: Path | None) -> frozenset[str]:
    """The names in a quarantine file: one a line as `written`,
    relative to the data folder; `#` begins a comment.
    """
    if file is None:
        return frozenset()
    try:
        lines = os.fsdecode(file.read_bytes()).split("\n")
    except OSError as error:
        raise DataError(f"{file}: cannot read the quarantine file ({error})") from error
    names = set()
    for number, line in enumerate(lines, 1):
        # behind a tab stands the reason that `data verify` wrote; it is for people
        text = line.split("\t")[0].strip(" \r")
        # the whole line and not `text`: a name may begin with blanks and a number sign
        if text and not line.startswith("#"):
            try:
                names.add(unwritten(text))
            except ValueError as error:
                raise DataError(
                    f"{written(str(file))}:{number}: {error}: write a backslash in a name twice"
                ) from error
    return frozenset(names)


def unmet(root: Path, names: Iterable[str], met: Collection[str]) -> list[str]:
    """A warning where lines of the quarantine name no file of the data folder."""
    missed = sorted(written(name) for name in names if name not in met)
    if not missed:
        return []
    lines = "1 line" if len(missed) == 1 else f"{len(missed):,} lines"
    return [
        f"{lines} of data.quarantine leave nothing out, for {written(str(root))} has no such file:"
        f" {missed[0]}"
        + (f" and {len(missed) - 1:,} more" if len(missed) > 1 else "")
        + "; names are relative to it, as train/<class>/<image>"
    ]


def quarantine_line(problem: Problem) -> str:
    """A problem as a line of a quarantine file;
    spaces at the ends and a first `#` are escaped too.
    """
    name, reason, _ = problem
    inner = name.strip(" ")
    first = len(name) - len(name.lstrip(" "))
    text = "\\x20" * first + inner + "\\x20" * (len(name) - first - len(inner))
    if text.startswith("#"):
        text = text.replace("#", "\\x23", 1)
    return f"{text}\t{' '.join(reason.split())}"
