"""Whether the system killed processes for want of memory: said only where it counted such a kill.
No torch.
"""

from __future__ import annotations

from pathlib import Path

# The counters of this control group (a container's, as it sees itself), else those of the whole
# machine.
_COUNTERS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)


def kills() -> int:
    """How many processes were killed for want of memory so far (0 where nobody counts)."""
    for place in _COUNTERS:
        try:
            lines = Path(place).read_text().splitlines()
        except OSError:
            continue
        # the first counter that is there counts: a container's own before the machine's
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if counts and counts[0].isdigit():
            return int(counts[0])
    return 0
