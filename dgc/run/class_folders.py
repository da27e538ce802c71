"""What can be said of a folder of class folders from its listing alone. No torch here, and no image
is opened.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from dgc import settings
from dgc.errors import DataError
from dgc.run.file_names import written

FOLDER_SETS = ("imagenet", "image_folder")
_LITTER = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})


def place(name: str, given: str | Path | None) -> Path:
    """The folder of a data set: as given, or $DGCCTL_DATA_DIR/<name>, or ./data/<name>."""
    if given is not None:
        return Path(given).expanduser()
    return (settings.data_dir() or Path("data")) / name


def is_litter(name: str) -> bool:
    """What macOS, Windows and file servers put beside the files they copy;
    `._x.jpg` is no picture.
    """
    return name.startswith("._") or name.lower() in _LITTER


def verify_command(root: Path, name: str = "image_folder") -> str:
    """The command that looks at all of a folder, to be typed as it stands."""
    return f"dgcctl data verify {name} --data-dir {shlex.quote(written(str(root.absolute())))}"


def missing(name: str, root: Path) -> DataError:
    """For a data folder that is not there."""
    where = written(str(root.absolute()))
    return DataError(
        f"{where}: no such folder for {name}, and it cannot be downloaded: put the images at"
        f" {where}/{{train,val}}/<class>/, or name another folder with --data-dir FOLDER (or"
        f" data.dir=FOLDER); `{verify_command(root, name)}` checks it"
    )


def wrong_number(root: Path, found: int, num_classes: int) -> DataError:
    """For a folder that has not as many classes as the network."""
    where = written(str(root))
    return DataError(
        f"{where}: {found} class folders in {where}/train, but the network has {num_classes}"
        f" classes: set model.num_classes={found} or give another folder with data.dir=FOLDER"
    )


def look(name: str, given: str | None, num_classes: int) -> None:
    """Before anything is started:
    raise DataError where the folder is missing or has another number of classes.

    All else that may be wrong with it is found by those who read it.
    """
    if name not in FOLDER_SETS:
        return
    root = place(name, given)
    try:
        if not root.is_dir():
            raise missing(name, root)
        with os.scandir(root / "train") as entries:
            names = [
                entry.name for entry in entries if not _is_hidden(entry.name) and entry.is_dir()
            ]
    # what cannot be listed is told by those who read it, with all that they know
    except OSError:
        return
    # none at all may be another layout, of which the reader says more
    if names and len(names) != num_classes:
        raise wrong_number(root, len(names), num_classes)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_litter(name)
