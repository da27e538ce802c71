"""What a conversion did, layer by layer: printed as a table, or as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LayerReport:
    """One convolution. `why`: of one that was left alone the reason, of a converted one what is
    unusual. MACs are those of one image; `promised` at the end of the schedule, gates included.
    """

    name: str
    converted: bool
    why: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    dense: float
    promised: float
    weights: int
    gate_parameters: int = 0
    heads: int | None = None
    gate_factor: float | None = None
    squeeze_rate: int | None = None


@dataclass(frozen=True)
class ConversionReport:
    """`difference`: how far the converted network's output on the example is from the original's,
    as a share of its largest number. None where the original is not finite there, or answers
    differently each time; then its layers alone were compared.
    """

    layers: tuple[LayerReport, ...]
    difference: float | None
    note: str = ""

    @property
    def converted(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if layer.converted)

    @property
    def left_alone(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if not layer.converted)

    @property
    def dense(self) -> float:
        """MACs of all convolutions before."""
        return sum(layer.dense for layer in self.layers)

    @property
    def promised(self) -> float:
        """MACs of all convolutions at the end of the schedule."""
        return sum(layer.promised for layer in self.layers)

    @property
    def share(self) -> float:
        """Of the convolutions' MACs, the part that is in converted layers."""
        return sum(layer.dense for layer in self.converted) / max(1.0, self.dense)

    @property
    def gate_parameters(self) -> int:
        return sum(layer.gate_parameters for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "converted": len(self.converted),
            "left_alone": len(self.left_alone),
            "share": self.share,
            "dense": self.dense,
            "promised": self.promised,
            "gate_parameters": self.gate_parameters,
            "difference": self.difference,
            "note": self.note,
            "layers": [
                asdict(layer) | {"kernel_size": list(layer.kernel_size)} for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        wide = max(len("layer"), *(len(layer.name) for layer in self.layers))
        head = f"{'layer':{wide}}  {'channels':>11}  kernel  {'M MACs':>8}  {'then':>8}  why"
        rows = [_line(layer, wide) for layer in self.layers]
        return "\n".join([head, *rows, self._foot()])

    def _foot(self) -> str:
        equal = (
            "not compared as a whole"
            if self.difference is None
            else f"off by {self.difference:.1e} from the original"
        )
        foot = (
            f"{len(self.converted)} of {len(self.layers)} convolutions converted, with"
            f" {self.share:.0%} of their MACs: {self.dense / 1e6:,.1f} M now,"
            f" {self.promised / 1e6:,.1f} M at the end of the schedule;"
            f" {self.gate_parameters:,} parameters in gates; {equal}"
        )
        return f"{foot}\n{self.note}" if self.note else foot


def _line(layer: LayerReport, wide: int) -> str:
    channels = f"{layer.in_channels} -> {layer.out_channels}"
    kernel = "x".join(map(str, layer.kernel_size))
    then = f"{layer.promised / 1e6:8.1f}" if layer.converted else " " * 8
    what = "converted" + (f", {layer.why}" if layer.why else "") if layer.converted else layer.why
    dense = f"{layer.dense / 1e6:8.1f}"
    return f"{layer.name:{wide}}  {channels:>11}  {kernel:>6}  {dense}  {then}  {what}"
