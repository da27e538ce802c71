"""`python -m dgc.hub verify NAME --json OUT`: the part of `dgcctl ckpt` that needs torch, in a
process of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dgc.hub.cache import Cache
from dgc.hub.fetch import Options
from dgc.hub.registry import find_entry
from dgc.jobs.reply import answer, say


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.hub")
    parser.add_argument("task", choices=["verify"])
    parser.add_argument("name")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)

    def make() -> dict[str, Any]:
        from dgc.hub.check import verify

        return {
            "checks": verify(
                find_entry(given.name), Cache.default(), Options(offline=True, say=say)
            )
        }

    return answer(given.json, make)


if __name__ == "__main__":
    sys.exit(main())
