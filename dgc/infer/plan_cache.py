"""The plans of a compiled network, by module and image size: those that were used last stay.

A plan holds the network's weights in the order in which its image size reads them, so a stream of
images of all sizes would fill the memory with plans. What is dropped is made anew when it is asked
for again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dgc.infer.program import NativePlan

KEPT_SIZES = 256  # image sizes of a module
KEPT_BYTES = 1 << 30  # of all plans together
LOOK_EVERY = 16  # uses between two looks at the bytes: more threads, or images at once, take more

Shape = tuple[int, ...]


class PlanCache:
    """One for a compiled network and all of its parts. Threads may ask at once: one of them makes
    a plan, the others wait for it.
    """

    def __init__(self, sizes: int = KEPT_SIZES, bytes_kept: int = KEPT_BYTES) -> None:
        self.sizes, self.bytes_kept = sizes, bytes_kept
        self.compiled = 0  # plans that were made so far, those that were dropped too
        self._until_look = LOOK_EVERY
        # of each module the image sizes in the order of their last use; None: it has no plan there
        self._plans: dict[object, OrderedDict[Shape, NativePlan | None]] = {}
        # and of all of them, which is the order in which they go when bytes are short
        self._uses: OrderedDict[tuple[object, Shape], NativePlan | None] = OrderedDict()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy of the network begins with none, as its weights may be changed
        return PlanCache, (self.sizes, self.bytes_kept)

    def get(
        self, owner: object, shape: Shape, make: Callable[[], NativePlan | None]
    ) -> NativePlan | None:
        """The plan of a module (`owner` is its own key) at an image size; `make` is asked where it
        is not kept.
        """
        with self._lock:
            plans = self._plans.setdefault(owner, OrderedDict())
            if shape not in plans:
                plans[shape] = made = make()
                self.compiled += 1
                self._uses[owner, shape] = made
                self._until_look = 0
            plans.move_to_end(shape)
            self._uses.move_to_end((owner, shape))
            self._until_look -= 1
            if self._until_look < 0:
                self._until_look = LOOK_EVERY
                self._drop(owner)
            return plans[shape]

    def of(self, owner: object) -> list[NativePlan | None]:
        """What is kept of a module, the least recently used first."""
        with self._lock:
            return list(self._plans.get(owner, {}).values())

    @property
    def held(self) -> int:
        """Bytes of all plans that are kept, and of what they work in."""
        return sum(plan.held for plan in self._uses.values() if plan is not None)

    def _drop(self, owner: object) -> None:
        # the newest stays, however large it is
        while len(self._plans[owner]) > self.sizes:
            self._remove(owner, next(iter(self._plans[owner])))
        while self.held > self.bytes_kept and len(self._uses) > 1:
            self._remove(*next(iter(self._uses)))

    def _remove(self, owner: object, shape: Shape) -> None:
        del self._plans[owner][shape], self._uses[owner, shape]
