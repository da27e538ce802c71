"""Started as a file: `python -P restored.py TREE FOLDER MODULE ...` runs `python -m MODULE ...` with the code of TREE.

An installed package is found before any path where it was installed editable; so finders that would answer with
another copy of `dgc` are dropped first, and it is checked that the right one was found. FOLDER becomes the working
directory, so that relative paths of the recipe mean what they meant.
"""

import os
import runpy
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def use(tree: Path) -> None:
    """Put `tree` first for this process and the ones it starts; end with a message where that fails."""
    for finder in list(sys.meta_path):
        spec = None if finder is PathFinder else finder.find_spec("dgc", None, None)
        if spec is not None and tree not in Path(spec.origin or "/").resolve().parents:
            sys.meta_path.remove(finder)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")]))
    import dgc

    if tree not in Path(str(dgc.__file__)).resolve().parents:
        sys.exit(f"error: the restored code in {tree} is hidden by {dgc.__file__}: unset PYTHONPATH or uninstall that")


def main() -> None:
    tree, folder, module = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    use(tree)
    os.chdir(folder)
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
