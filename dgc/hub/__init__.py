"""Released and own checkpoints: what there is, fetched, verified, converted, loaded. No torch until
it is needed.

registry    the released checkpoints as data              download   fetched, checked, pinned
containers  static inspection of a foreign file           convert    to safetensors, in a child with limits
pretrained  a network with its weights                    verify, export
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgc.hub.pretrained import Pretrained as Pretrained
    from dgc.hub.pretrained import load_pretrained as load_pretrained

_EXPORTS = {"load_pretrained": "dgc.hub.pretrained", "Pretrained": "dgc.hub.pretrained"}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'dgc.hub' has no attribute {name!r}")
