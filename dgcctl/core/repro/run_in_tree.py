"""Started as a file: `python -P run_in_tree.py TREE FOLDER MODULE ...` runs `python -m MODULE ...`
with the code of TREE.

With `--import NAME` before MODULE, NAME is imported first; if that fails, the last line on stderr
says where.

An installed package is found before any path where it was installed editable; so finders that would
answer with another copy of `dgc` are dropped first, and it is checked that the right one was found.
FOLDER becomes the working directory, so that relative paths of the recipe mean what they meant.
"""

import importlib
import os
import runpy
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path

CANNOT_IMPORT = "cannot import: "


def use(tree: Path) -> None:
    """Put `tree` first for this process and the ones it starts;
    end with a message where that fails.
    """
    # An editable installation puts a finder of its own before all paths; PYTHONPATH alone would
    # lose to it without a word.
    for finder in list(sys.meta_path):
        spec = None if finder is PathFinder else finder.find_spec("dgc", None, None)
        if spec is not None and tree not in Path(spec.origin or "/").resolve().parents:
            sys.meta_path.remove(finder)
    # in front of everything, the folder of the program included
    sys.path.insert(0, str(tree))
    # The trainer's own children (ranks, the loader's workers where they are spawned) start clean.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(tree), os.environ.get("PYTHONPATH")])
    )
    import dgc

    # A repetition with the wrong code would be worse than none: it could even succeed.
    if tree not in Path(str(dgc.__file__)).resolve().parents:
        sys.exit(
            f"error: the restored code in {tree} is hidden by {dgc.__file__}: unset PYTHONPATH or"
            " uninstall that"
        )


def try_import(tree: Path, name: str) -> None:
    """Import a module of the tree, if it has that;
    a fault in it is said by its file and line, and ends with 1.
    """
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - it is what was asked for
        if (
            # missing is the module that was asked for, or a package that it lies in
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{name}.".startswith(f"{error.name}.")
        ):
            return  # older code may not have it
        sys.exit(
            f"{CANNOT_IMPORT}{_place(tree, error)}{type(error).__name__}:"
            f" {' '.join(str(error).split())}"
        )


def _place(tree: Path, error: Exception) -> str:
    """File and line of a fault: where it was raised in the tree,
    else where it was raised at all.
    """
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        # a syntax error is raised where it was read, and names the file that has it
        frames.append((error.filename, error.lineno))
    inside = [frame for frame in frames if tree in Path(frame[0]).resolve().parents]
    file, line = (inside or frames)[-1]
    shown = Path(file).resolve()
    return f"{shown.relative_to(tree) if tree in shown.parents else shown}:{line}: "


def main() -> None:
    # resolved before chdir: it may have been given relative to here
    tree, folder, module = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    if module == "--import":
        name, module = sys.argv[4:6]
        del sys.argv[3:5]
        try:
            use(tree)
        except Exception:  # noqa: BLE001 - said by try_import, with its place
            try_import(tree, "dgc")
        try_import(tree, name)
    else:
        use(tree)
    # after the import: the working directory must not be where `dgc` is found
    os.chdir(folder)
    sys.argv = [module, *sys.argv[4:]]
    # as `python -m` would, so that the program sees itself as it always does
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
