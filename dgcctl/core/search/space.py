"""`optim.lr=log:0.01..0.3 model.gate_factor=0.25..0.75 seed=0,1`: what a search may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dgc.errors import UsageError
from dgcctl.core.sweep.grid import parse_axis, split_values
from dgcctl.core.sweep.ranges import Range, parse_range


@dataclass(frozen=True)
class Choice:
    """One searched key: a range of numbers, or the texts of its values."""

    key: str
    range: Range | None
    values: tuple[str, ...] = ()

    def distribution(self) -> Any:
        """As Optuna has it."""
        # here, so that a command line that is refused does not wait for Optuna
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.range is None:
            return CategoricalDistribution(self.values)
        if self.range.whole:
            step = int(self.range.step or 1)
            return IntDistribution(int(self.range.first), int(self.range.last), step=step)
        low, high = float(self.range.first), float(self.range.last)
        if self.range.log:
            return FloatDistribution(low, high, log=True)
        return FloatDistribution(
            low, high, step=float(self.range.step) if self.range.step else None
        )

    def all(self) -> list[Any] | None:
        """Every value, as Optuna has them; None where they have no end, or are too many."""
        if self.range is None:
            return list(self.values)
        if self.range.log or not (self.range.whole or self.range.step):
            return None
        try:
            texts = self.range.values()
        except UsageError:  # more than are ever written out
            return None
        return [int(text) if self.range.whole else float(text) for text in texts]

    def ends(self) -> list[Any]:
        """The first and the last value of a range."""
        assert self.range is not None, "a list has all its values"
        kind = int if self.range.whole else float
        return [kind(self.range.first), kind(self.range.last)]

    def override(self, value: Any) -> str:
        """A value that was chosen, as an override; six digits tell fractions apart."""
        return f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}"


def parse_choices(texts: Sequence[str]) -> tuple[list[str], list[Choice]]:
    """What is the same in all trials, and what is searched. UsageError where nothing is."""
    fixed: list[str] = []
    choices: list[Choice] = []
    for text in texts:
        key, _, given = text.partition("=")
        one = parse_range(given)
        # a step on a logarithmic scale, or one value: what a sweep knows and Optuna does not
        if one is not None and one.first < one.last and not (one.log and one.step):
            choices.append(Choice(key, one))
            continue
        axis = parse_axis(text)
        if len(axis.values) > 1:
            choices.append(Choice(axis.key, None, axis.values))
        else:
            fixed.append(f"{axis.key}={split_values(given)[0]}")
    # counted: two ranges of one key would be two numbers of one trial
    for choice in choices:
        if [*(other.key for other in choices)].count(choice.key) > 1:
            raise UsageError(f"{choice.key} is searched twice: give all its values at once")
    if not choices:
        raise UsageError(
            "search: name at least one key with what to choose from, as optim.lr=log:0.01..0.3,"
            " model.gate_factor=0.25..0.75 or model.heads=2,4"
        )
    return fixed, choices
