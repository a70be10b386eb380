"""Runs the nucleus network: by OpenVINO where it gives the same maps, otherwise by torch."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slidetriage.models.compiled import ConversionError, convert_once, import_openvino
from slidetriage.models.precision import Device, NumberFormat, RuntimeChoice, find_precision
from slidetriage.models.probe import paint_probe

from .network import STRIDE, NucleusNetwork

Images = NDArray[np.uint8]

MAP_DRIFT_BOUNDS: dict[NumberFormat, float] = {"float32": 1e-3, "bfloat16": 0.02, "float16": 0.01}
"""Largest root mean square difference of the maps, 0 to 1, from torch in float32 that is accepted.

Maps are rounded to 1/255, which alone makes up to 0.001 of it where the roundings differ."""

_PROBE_PX = 192
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class MapRunner(Protocol):
    """Computes maps; threads may share it."""

    def __call__(self, image: Images) -> Images:
        """H x W x 3 RGB, H and W multiples of 16 -> 2 x H x W: inside and depth, 0 to 255."""
        ...


@dataclass(frozen=True, slots=True)
class ChosenRunner:
    """What runs, and why."""

    run: MapRunner
    choice: RuntimeChoice


class EagerMaps:
    """Runs the network with torch on the device it lies on."""

    def __init__(self, network: NucleusNetwork, kind: NumberFormat) -> None:
        self._network = _Rounded(network).eval()
        self._device = next(network.parameters()).device
        self._dtype = _DTYPES[kind]

    @torch.inference_mode()
    def __call__(self, image: Images) -> Images:
        """H x W x 3 -> 2 x H x W."""
        given = torch.from_numpy(np.ascontiguousarray(image))[None].to(self._device)
        reduced = self._dtype != torch.float32
        with (
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
            torch.autocast(self._device.type, self._dtype, enabled=reduced),
        ):
            maps: Tensor = self._network(given)
        return np.asarray(maps[0].cpu().numpy(), np.uint8)


class CompiledMaps:
    """Runs the network with OpenVINO on the CPU, images of any size one after the other."""

    def __init__(self, graph: Any, kind: NumberFormat, *, threads: int, at_once: int = 1) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if at_once == 1 else "THROUGHPUT",
            "NUM_STREAMS": at_once,
            "INFERENCE_NUM_THREADS": threads * at_once,
            # Each of several worker processes would pin its threads to the same cores.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": _HINTS[kind],
        }
        try:
            model = import_openvino().Core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise ConversionError(f"OpenVINO cannot compile the network ({error})") from error
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(at_once):
            self._free.put(model.create_infer_request())

    def __call__(self, image: Images) -> Images:
        """H x W x 3 -> 2 x H x W."""
        request = self._free.get()
        try:
            request.infer([np.ascontiguousarray(image)[None]], share_inputs=True)
            return np.array(request.get_output_tensor(0).data[0], np.uint8)
        finally:
            self._free.put(request)


class LazyRunner:
    """Chooses how to run when first asked, so that loading a detector is quick."""

    def __init__(self, network: NucleusNetwork, device: Device) -> None:
        self._network, self._device = network, device
        self._chosen: ChosenRunner | None = None
        self._lock = threading.Lock()

    def __call__(self, image: Images) -> Images:
        """H x W x 3 -> 2 x H x W."""
        return self.choose().run(image)

    def choose(self) -> ChosenRunner:
        """What runs; chosen at once if that is not done already."""
        with self._lock:
            if self._chosen is None:
                self._chosen = choose_runner(self._network, self._device)
            return self._chosen

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process chooses anew: compiled networks do not travel."""
        return {"_network": self._network, "_device": self._device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_network"], state["_device"])  # type: ignore[misc]  # the state is its arguments


def choose_runner(network: NucleusNetwork, device: Device) -> ChosenRunner:
    """The fastest way whose maps on a painted probe are those of torch in float32, by the bound."""
    network.to(device.name)
    probe = paint_probe(1, _PROBE_PX, _PROBE_PX)[0]
    reference = EagerMaps(network, "float32")(probe).astype(np.float64) / 255
    precision, reason = find_precision(device)
    said, refused = [reason], set[str]()
    threads = device.threads or torch.get_num_threads()
    for name, kind in _list_ways(device, precision):
        if name in refused:
            continue
        try:
            runner = _build(network, name, kind, device)
        except ConversionError as error:
            said.append(str(error))
            refused.add(name)
            continue
        drift = float(np.sqrt(np.mean((runner(probe) / 255 - reference) ** 2)))
        if drift <= MAP_DRIFT_BOUNDS[kind] or (name, kind) == ("torch", "float32"):
            break
        said.append(f"{name} in {kind} drifts by {drift:.2g}")
    choice = RuntimeChoice(
        name="openvino" if name == "openvino" else "torch",
        precision=kind,
        batch_tiles=1,
        threads=threads if device.name == "cpu" else None,
        reason="; ".join(said),
        drift=drift,
    )
    return ChosenRunner(runner, choice)


def _list_ways(device: Device, precision: NumberFormat) -> list[tuple[str, NumberFormat]]:
    """Fastest first, the plain way last."""
    kinds: tuple[NumberFormat, ...] = (precision, "float32")
    kinds = kinds[:1] if precision == "float32" else kinds
    on_cpu = device.name == "cpu"
    ways: list[tuple[str, NumberFormat]] = []
    if on_cpu and device.runtime != "torch":
        ways = [("openvino", kind) for kind in kinds]
    # torch's own bfloat16 is slower than its float32 on processors.
    return ways + [("torch", kind) for kind in (("float32",) if on_cpu else kinds)]


def _build(network: NucleusNetwork, name: str, kind: NumberFormat, device: Device) -> MapRunner:
    if name == "torch":
        return EagerMaps(network, kind)
    threads = device.threads or torch.get_num_threads()
    graph = convert_once("nuclei", network, lambda: convert(network))
    return CompiledMaps(graph, kind, threads=threads, at_once=device.at_once)


class _Rounded(nn.Module):
    """The network's maps as bytes."""

    def __init__(self, network: NucleusNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x 2 x H x W uint8."""
        logits: Tensor = self.network(images)
        return torch.floor(logits.float().sigmoid() * 255 + 0.5).to(torch.uint8)


@torch.no_grad()
def convert(network: NucleusNetwork) -> Any:
    """The network on the CPU as OpenVINO's graph for one image of any size."""
    openvino = import_openvino()
    example = torch.zeros(1, 4 * STRIDE, 4 * STRIDE, 3, dtype=torch.uint8)
    rounded = _Rounded(network).eval()
    with warnings.catch_warnings():
        # Padding is traced as constants, which it is for every multiple of 16.
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        # Deprecated in torch 2.12, but it is what OpenVINO converts fastest.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        # A function keeps its weights as constants; a module takes two to five times as long.
        traced = torch.jit.trace(lambda x: rounded(x), example, check_trace=False)  # type: ignore[no-untyped-call]  # torch's
    try:
        return openvino.convert_model(traced, example_input=example, input=[(1, -1, -1, 3)])
    except (RuntimeError, TypeError, ValueError, openvino.frontend.OpConversionFailure) as error:
        raise ConversionError(f"OpenVINO cannot take the network ({error})") from error
