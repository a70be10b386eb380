"""Where a network runs and in which numbers: what is wished (`Device`) and what came of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from slidetriage.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
NumberFormat = Literal["float32", "bfloat16", "float16"]
RuntimeName = Literal["openvino", "torch"]

DRIFT_BOUNDS: dict[NumberFormat, float] = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.01}
"""Largest relative L2 difference of a tile's features from torch in float32 that is accepted.

bfloat16 keeps 8 bits, so one rounding errs by up to 2^-9 = 0.002; a hundred of them that add up
like independent errors make 0.02. A network beyond it amplifies them (MobileNetV2 does, ResNet
and ViT do not). float16 keeps 3 bits more and float32 16 more; their bounds leave room for sums
in another order.
"""

SCORE_DRIFT_BOUND = 0.005
"""Largest difference of a tile's probability that is accepted: half of the last digit shown."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a network is wished to run on; wherever a device is asked for, its name alone will do.

    >>> Device.of("cpu") == Device()
    True
    """

    name: str = "cpu"
    """torch's name of it: cpu, cuda, cuda:1."""
    precision: Precision = "auto"
    """auto takes the fastest that the hardware does well and that the network bears."""
    threads: int | None = None
    """CPU threads; results depend on it. None is the number torch has when the network is made."""
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    """auto is OpenVINO on a CPU, as far as it can take the network, and torch elsewhere."""
    at_once: int = 1
    """Passes at a time on a CPU, each on `threads` threads; results do not depend on it."""
    batch_tiles: int | None = None
    """Tiles per pass; None is 32 on a CPU and on a GPU what is found to be fastest there."""

    def __post_init__(self) -> None:
        kind = self.name.split(":")[0]
        if self.precision not in get_args(Precision):
            raise UsageError(
                f"There is no precision {self.precision!r}.",
                mend=f"Choose one of: {', '.join(get_args(Precision))}.",
            )
        if kind == "cpu" and self.precision == "float16":
            raise UsageError(
                "Processors compute slowly in float16.", mend="Choose auto, float32 or bfloat16."
            )
        if kind != "cpu" and self.runtime == "openvino":
            raise UsageError(f"OpenVINO is used on the CPU only, not on {self.name}.")
        numbers = (self.threads, self.batch_tiles, self.at_once)
        if any(number is not None and number < 1 for number in numbers):
            raise UsageError("threads, batch_tiles and at_once must be at least 1.")

    @classmethod
    def of(cls, device: str | Device) -> Device:
        """The device of this name, or itself."""
        return cls(device) if isinstance(device, str) else device


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """What really computes the features; results record it."""

    name: RuntimeName
    precision: NumberFormat
    batch_tiles: int
    """Tiles per pass; the last is padded to it."""
    threads: int | None
    """CPU threads, None on a GPU."""
    reason: str
    """Why this and nothing faster, in words."""
    drift: float
    """Largest relative L2 difference from torch in float32, over the features of probe tiles."""
    score_drift: float | None = None
    """Largest difference in probability over the same tiles; None if no head was asked."""

    def as_record(self) -> dict[str, object]:
        """For provenance; a number that is not finite is None, drifts have two digits."""
        record = dataclasses.asdict(self)
        for key in ("drift", "score_drift"):
            value = record[key]
            known = value is not None and math.isfinite(value)
            record[key] = float(f"{value:.2g}") if known else None
        return record


def find_precision(device: Device) -> tuple[NumberFormat, str]:
    """The precision to try first, and why."""
    if device.name == "cpu" and device.precision == "bfloat16" and not has_bfloat16():
        return "float32", "bfloat16 was asked for, but the processor does not compute in it"
    if device.precision != "auto":
        return device.precision, "as asked"
    if device.name.split(":")[0] == "cuda":
        # The second argument is False: emulated bfloat16 would be slower than float16.
        if torch.cuda.is_bf16_supported(False):
            return "bfloat16", "the GPU computes in bfloat16"
        return "float16", "the GPU computes in float16 but not in bfloat16"
    if device.name == "cpu" and has_bfloat16():
        return "bfloat16", "the processor computes in bfloat16"
    return "float32", "no faster format is known to serve this processor"


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies matrices in bfloat16 (AVX512-BF16 or AMX)."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
