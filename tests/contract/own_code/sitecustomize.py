"""On PYTHONPATH of a clone under test: an editable install of another checkout must not hide the
clone's own code.
"""

import sys

sys.meta_path[:] = [
    finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")
]
