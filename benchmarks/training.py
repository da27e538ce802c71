"""Is training a DGC network cheaper than training its dense twin? The program is
dgc.bench.training; see its --help.
"""

from __future__ import annotations

import sys

from dgc.bench.training import main

if __name__ == "__main__":
    sys.exit(main())
