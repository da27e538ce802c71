"""`python -m dgc.hub verify NAME --json OUT`: the part of `dgcctl ckpt` that needs torch, in a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgc.errors import DgcError
from dgc.hub.cache import Cache
from dgc.hub.download import Options
from dgc.hub.registry import find_entry
from dgc.records import write_json


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.hub")
    parser.add_argument("task", choices=["verify"])
    parser.add_argument("name")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        from dgc.hub.verify import verify

        options = Options(offline=True, say=_say)
        write_json(given.json, {"checks": verify(find_entry(given.name), Cache.default(), options)})
    except DgcError as error:
        _say(f"error: {error}")
        return int(error.exit_code)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
