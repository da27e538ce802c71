"""The pruning schedule for a training loop of one's own,
with the manners of PyTorch's schedulers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.layers.model_ops import gate_l1, iter_dgc, set_progress


class PruningSchedule:
    """Switches off more and more channels of a model's dynamic layers over `steps` training steps:
    none in the first twelfth, all that are to go after three quarters (the paper's schedule, see
    dgc.schedule).

        schedule = dgc.PruningSchedule(model, steps=epochs * len(loader))
        for images, labels in ...:
            loss = cross_entropy(model(images), labels) + schedule.penalty()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            schedule.step()  # once a step, after the optimizer's

    `averaged` are copies of the model that somebody averages its weights into (timm's ModelEmaV3,
    torch's AveragedModel): they are pruned as far as the model. `gate_l1` weighs the L1 of the
    gates in the loss (1e-5 in the paper). With gradients that are accumulated, or several
    processes, `steps` counts updates. Save `state_dict()` beside the model's: how much is switched
    off is set again by `load_state_dict`.

    Raises ArgumentError for a model without dynamic layers, and for steps or gate_l1 that cannot
    be.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        *,
        gate_l1: float = 1e-5,
        averaged: Iterable[nn.Module] = (),
    ) -> None:
        if steps < 1:
            raise ArgumentError(f"steps={steps}: the length of the training in steps, at least 1")
        if not gate_l1 >= 0:
            raise ArgumentError(f"gate_l1={gate_l1}: the weight of the gates' L1, at least 0")
        if next(iter_dgc(model), None) is None:
            raise ArgumentError(
                "the model has no dynamic layers: put DynamicGroupConv2d into it, or dgc.convert it"
            )
        self.model, self.steps, self.gate_l1 = model, steps, gate_l1
        self.averaged = tuple(averaged)
        self.last_step = 0
        self._set()

    @property
    def progress(self) -> float:
        """Share of the training that is done, from 0 to 1."""
        return min(self.last_step / self.steps, 1.0)

    @property
    def inactive(self) -> int:
        """Channels that are switched off now, over all heads' layers together."""
        return sum(layer.n_inactive for _, layer in iter_dgc(self.model))

    def step(self) -> None:
        """After each update. Beyond the last step everything stays as it is at the end."""
        self.last_step += 1
        self._set()

    def penalty(self) -> Tensor:
        """What is added to the loss: a scalar with a graph, of the model's last forward."""
        return self.gate_l1 * gate_l1(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"last_step": self.last_step, "steps": self.steps, "gate_l1": self.gate_l1}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called. Raises ArgumentError for another length of training,
        which would prune at another pace.
        """
        # progress is a share: last_step of one length says nothing in another
        if state["steps"] != self.steps:
            raise ArgumentError(
                f"the state is of a schedule over {state['steps']} steps, and this one is over"
                f" {self.steps}: make it with steps={state['steps']}"
            )
        self.last_step, self.gate_l1 = state["last_step"], state["gate_l1"]
        self._set()

    def _set(self) -> None:
        # averaging moves weights; how many channels are off is a plain number of each copy
        for model in (self.model, *self.averaged):
            set_progress(model, self.progress)
