"""What docs call `dgc.ROOM.NAME` is there after `import dgc` alone, and not loaded before it is asked."""

from __future__ import annotations

import subprocess
import sys


def test_what_docs_name_is_there_after_import_dgc_alone() -> None:
    program = (
        "import dgc, sys\n"
        "assert not {'dgc.hub', 'dgc.run', 'dgc.runtime'} & set(sys.modules)\n"
        "print(callable(dgc.hub.load_pretrained), callable(dgc.run.start), callable(dgc.runtime.load))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True True True\n", 0), done.stderr
