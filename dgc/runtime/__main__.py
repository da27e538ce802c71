"""`python -m dgc.runtime`: where a C program finds header and library; plan files without dgcctl.

python -m dgc.runtime where              header, library and examples in C and C++, a path a line
python -m dgc.runtime --cflags           what a C or C++ compiler needs: -I, the library, its path
python -m dgc.runtime info FILE          what a plan file says of itself
python -m dgc.runtime predict FILE IMAGE...
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from dgc.errors import DataError, DgcError, UsageError
from dgc.runtime.native import examples, header, library
from dgc.runtime.plan import Plan, load
from dgc.talk import put, run_program, say_error


def flags() -> str:
    """For a compiler's command line, in the words of a shell."""
    return " ".join(
        [
            f"-I{shlex.quote(str(header()))}",
            shlex.quote(str(library())),
            shlex.quote(f"-Wl,-rpath,{library().parent}"),
        ]
    )


def where() -> str:
    """What a C program needs and where it lies."""
    found = {"header": header() / "dgc_plan.h", "library": library()}
    found |= {"C": examples() / "plan.c", "C++": examples() / "plan.cpp"}
    return "\n".join(f"{name:<8} {path}" for name, path in found.items())


def info(plan: Plan) -> dict[str, Any]:
    how = plan.preprocessing
    return {
        "file": plan.name,
        "precision": plan.precision,
        "images": [{"image": s.image, "answer": s.answer} for s in plan.shapes],
        "classes": list(plan.classes),
        "preprocessing": how and vars(how),
        "origin": plan.origin,
        "bytes_to_compute_in": plan.memory(),
    }


def classes_of(plan: Plan, images: list[str]) -> None:
    """Print the classes of image files. Raises DataError afterwards where some cannot be read."""
    try:
        from dgc.runtime.classify import predict
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise UsageError("image files need Pillow: pip install pillow") from error
    found, bad = predict(plan, [Path(image) for image in images])
    put(json.dumps({"images": found, "unreadable": bad}, indent=2))
    if bad:
        first = f"{bad[0]['path']}: {bad[0]['why']}"
        raise DataError(f"{len(bad)} of {len(images)} images could not be read: {first}")


def answer(words: list[str]) -> None:
    if words == ["--cflags"]:
        put(flags())
    elif words == ["where"]:
        put(where())
    elif words[:1] == ["info"] and len(words) == 2:
        put(json.dumps(info(load(words[1], threads=1)), indent=2))
    elif words[:1] == ["predict"] and len(words) > 2:
        classes_of(load(words[1]), words[2:])
    else:
        raise UsageError("say where, --cflags, info FILE, or predict FILE IMAGE...")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dgc.runtime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    # argparse is here for --help alone; it would take --cflags for an option of its own.
    _, words = parser.parse_known_args(arguments)
    try:
        answer(words)
    except DgcError as error:
        say_error(error)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    run_program(main)
