"""Compare the ways to run an encoder's network on this CPU: tiles per second, and drift.

    python benchmarks/network.py [NAME] [--px 224] [--threads N] [--batch 32] [--quick] [--json]

NAME is an architecture of timm, with random weights. All ways take the same painted tiles and
take turns, so that whatever else the machine does falls on all of them. Drift is the largest
relative L2 difference of a tile's features from the first way, which is the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.models import EncoderCard, random_encoder
from slidetriage.models.backbones import outline_backbone
from slidetriage.models.compiled import Conversion, import_openvino
from slidetriage.models.eager import EagerNetwork
from slidetriage.models.precision import NumberFormat
from slidetriage.models.probe import measure_drift, paint_probe
from slidetriage.models.tile_network import TileNetwork

HALF = (0.5, 0.5, 0.5)
LEAST_RUNS = 5
Way = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Figures:
    """What was measured of one way."""

    tiles_per_s: float
    drift: float
    ready_after_s: float


def describe(name: str, px: int) -> EncoderCard:
    """A card for an architecture of timm, its feature size read from an outline."""
    card = EncoderCard(name, {}, "default", 1, px, "bilinear", HALF, HALF)
    outline = outline_backbone(card)
    with torch.device("meta"):
        size = outline.eval()(torch.empty(1, 3, px, px)).shape[1]
    return EncoderCard(name, {}, "default", size, px, "bilinear", HALF, HALF)


def run_contiguously(network: TileNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The plain way: float32, channel after channel, no runtime of ours."""
    with torch.inference_mode():
        # Bytes come channels last, and so they would stay.
        x = network.prepare_images(torch.from_numpy(images)).contiguous()
        features: NDArray[np.float32] = network.extract_features(x).numpy()
        return features


def build_ways(
    card: EncoderCard, tiles: NDArray[np.uint8], *, threads: int
) -> dict[str, tuple[Way, float]]:
    """Each way to run the network and the seconds it took to get ready."""
    plain, fast = (TileNetwork(random_encoder(card, seed=0).backbone, card) for _ in range(2))
    for network, order in ((plain, torch.contiguous_format), (fast, torch.channels_last)):
        network.eval().requires_grad_(False)
        network.to("cpu", memory_format=order)  # type: ignore[call-overload]  # torch's stub lacks this form
    batch = len(tiles)

    def run_eagerly(kind: NumberFormat) -> Way:
        return EagerNetwork(fast, precision=kind, batch_tiles=batch)

    def compile_(kind: NumberFormat) -> Way:
        conversion = Conversion.of(plain, tiles, batch_tiles=batch)
        return conversion.compile(kind, threads=threads)[0]

    makers: dict[str, Callable[[], Way]] = {
        "torch float32 contiguous": lambda: lambda images: run_contiguously(plain, images),
        "torch float32 channels_last": lambda: run_eagerly("float32"),
        "torch bfloat16 autocast": lambda: run_eagerly("bfloat16"),
        "openvino float32": lambda: compile_("float32"),
        "openvino bfloat16": lambda: compile_("bfloat16"),
    }
    import_openvino()
    ways = {}
    for name, make in makers.items():
        start = time.perf_counter()
        ways[name] = (make(), time.perf_counter() - start)
    return ways


def measure(
    ways: dict[str, tuple[Way, float]], tiles: NDArray[np.uint8], *, runs: int
) -> dict[str, Figures]:
    """Medians over `runs` turns of all ways; the first turn, not counted, gives the drift."""
    features = {name: way(tiles) for name, (way, _) in ways.items()}
    reference = next(iter(features.values()))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, (way, _) in ways.items():
            start = time.perf_counter()
            way(tiles)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Figures(
            tiles_per_s=len(tiles) / statistics.median(seconds[name]),
            drift=measure_drift(features[name], reference),
            ready_after_s=ready,
        )
        for name, (_, ready) in ways.items()
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="resnet18", help="architecture of timm")
    parser.add_argument("--px", type=int, default=224, help="side of the network's input")
    parser.add_argument("--tile-px", type=int, help="side of a tile, by default the input's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=32, help="tiles per pass")
    parser.add_argument("--runs", type=int, default=9, help="at least 5")
    parser.add_argument("--quick", action="store_true", help="5 runs of at most 8 tiles")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()
    runs = LEAST_RUNS if arguments.quick else max(LEAST_RUNS, arguments.runs)
    batch = min(8, arguments.batch) if arguments.quick else arguments.batch
    torch.set_num_threads(arguments.threads)
    side = arguments.tile_px or arguments.px
    tiles = paint_probe(batch, side, side)
    ways = build_ways(describe(arguments.name, arguments.px), tiles, threads=arguments.threads)
    figures = measure(ways, tiles, runs=runs)
    if arguments.json:
        setting = {"network": arguments.name, "input_px": arguments.px, "tile_px": side}
        setting |= {"threads": arguments.threads, "batch_tiles": batch, "runs": runs}
        ways_record = {name: asdict(found) for name, found in figures.items()}
        print(json.dumps({**setting, "ways": ways_record}))
        return
    sizes = f"{side} -> {arguments.px} px, {batch} tiles, {arguments.threads} threads"
    print(f"{arguments.name}, {sizes}")
    for name, found in figures.items():
        print(
            f"{name:28} {found.tiles_per_s:8.1f} tiles/s   drift {found.drift:.1e}"
            f"   ready after {found.ready_after_s:.2f} s"
        )


if __name__ == "__main__":
    main()
