"""The networks: dydensenet and dyresnet18, their dense and static-group twins, and the released
checkpoints.
"""

from __future__ import annotations

from dgc.models.dydensenet import DyDenseNet
from dgc.models.dyresnet18 import DyResNet18
from dgc.models.released import load_released
from dgc.models.table import RELEASED, create_model, list_models

__all__ = ["RELEASED", "DyDenseNet", "DyResNet18", "create_model", "list_models", "load_released"]
