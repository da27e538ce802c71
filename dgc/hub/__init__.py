"""Released and own checkpoints: what there is, fetched, verified, converted, loaded. No torch until
it is needed.

registry                 the released checkpoints as data
hosts, transfer          over HTTP, resumed after a cut
fetch, cache             checked, pinned, and only then named
filetype, scan, pickles  looked at, nothing run
convert, sandbox         to safetensors, in a process of its own
load_weights             a network with its weights
card                     what belongs to a set of weights
weights_export           a checkpoint to give away
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgc.hub.load_weights import Pretrained as Pretrained
    from dgc.hub.load_weights import load_pretrained as load_pretrained

_EXPORTS = {"load_pretrained": "dgc.hub.load_weights", "Pretrained": "dgc.hub.load_weights"}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'dgc.hub' has no attribute {name!r}")
