"""A GPU kept busy: reading and decoding on the CPU or on the device, against the network alone.

    python benchmarks/gpu.py [--json] [--quick] [--backbones vit_large_patch16_224 resnet50]

For each backbone, tiles/s of: `network`, with tiles that lie on the device; `ours`, the product's
station reading ahead on CPU threads; `nvjpeg`, the decoding of the same compressed tiles on the
device by torchvision, alone; and the share of time in which the device was busy while ours ran (as
NVIDIA's management library says). Without a CUDA device it says so and ends with status 3.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from bundles import make_bundle
from mosaic import default_data, make_mosaic
from reading import choose_tiles

from slidetriage.models import Device, load_bundle
from slidetriage.models.eager import EagerNetwork
from slidetriage.models.tile_network import TileNetwork
from slidetriage.tiling import TileBatch, read_tiles
from slidetriage.wsi import open_reader, open_slide
from slidetriage.wsi.tiff_reader import TiffReader

TILE_PX, MPP, BATCH = 224, 0.5, 1024


class BusyWatch(threading.Thread):
    """Samples how busy the device is."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[int] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stopped.wait(0.1):
            with contextlib.suppress(RuntimeError, ModuleNotFoundError):
                self.samples.append(torch.cuda.utilization())

    def stop(self) -> float | None:
        """Mean share of time, 0 to 1; None where the management library is not there."""
        self._stopped.set()
        self.join()
        return mean(self.samples) / 100 if self.samples else None


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of the work, the device's part included."""
    taken = []
    for repeat in range(repeats + 1):  # the first warms up
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if repeat:
            taken.append(time.perf_counter() - begin)
    return median(taken)


def encode_ahead(batches: list[TileBatch], folder: Path, readers: int) -> Callable[[], None]:
    """Read on `readers` threads and encode on this one, at most `readers` batches ahead."""
    bundle = load_bundle(folder, device=Device("cuda"))
    bundle.prepare()
    reader = open_reader(batches[0].slide)

    def run() -> None:
        with ThreadPoolExecutor(readers) as pool:
            ahead = [pool.submit(read_tiles, reader, batch) for batch in batches[:readers]]
            for number in range(len(batches)):
                pixels = ahead.pop(0).result()
                if number + readers < len(batches):
                    ahead.append(pool.submit(read_tiles, reader, batches[number + readers]))
                bundle.encode(pixels.images)

    return run


def decode_on_device(batches: list[TileBatch]) -> tuple[Callable[[], None], int]:
    """Every compressed tile of the level once, by nvJPEG, in groups; and how many output tiles."""
    from torchvision.io import decode_jpeg

    reader = TiffReader(batches[0].slide)
    level = reader.levels[0]
    file = os.open(reader.slide.path, os.O_RDONLY)
    places = list(zip(level.offsets.tolist(), level.byte_counts.tolist(), strict=True))
    grid = batches[0].tiles.grid
    share = (TILE_PX * MPP / grid.mpp_x) ** 2 / (level.tile_width_px * level.tile_height_px)

    def run() -> None:
        for start in range(0, len(places), 512):
            data = [
                torch.frombuffer(bytearray(os.pread(file, count, offset)), dtype=torch.uint8)
                for offset, count in places[start : start + 512]
            ]
            decode_jpeg(data, device="cuda")

    return run, round(len(places) / share)


def measure(backbone: str, args: argparse.Namespace, work: Path) -> dict[str, object]:
    """The rates of one backbone."""
    side = 14_080 if args.quick else 24_576
    path = make_mosaic(work / f"mosaic-{side}-0.252.svs", width_px=side, mpp=0.252, data=args.data)
    small = choose_tiles(open_slide(path), mpp=MPP, tile_px=TILE_PX)
    slide, tiles = small[0].slide, sum(len(batch.tiles) for batch in small)
    whole = choose_tiles(slide, mpp=MPP, tile_px=TILE_PX, batch=BATCH)
    folder = make_bundle(work / f"bundle-{backbone}", backbone, mpp=MPP, tile_px=TILE_PX)
    repeats = 3 if args.quick else 5
    bundle = load_bundle(folder, device=Device("cuda"))
    choice = bundle.prepare()
    images = torch.randint(
        0, 256, (choice.batch_tiles, TILE_PX, TILE_PX, 3), dtype=torch.uint8, device="cuda"
    )
    passes = -(-tiles // choice.batch_tiles)
    alone = EagerNetwork(
        TileNetwork(bundle.encoder.backbone, bundle.card.encoder).eval().to("cuda"),
        precision=choice.precision, batch_tiles=choice.batch_tiles,
    )  # fmt: skip

    @torch.inference_mode()
    def encode_from_device() -> None:
        for _ in range(passes):
            alone.extract(images)

    network = seconds(encode_from_device, repeats)
    readers = max(1, min(16, (os.cpu_count() or 2) - 1))
    run = encode_ahead(whole, folder, readers)
    watch = BusyWatch()
    watch.start()
    ours = seconds(run, repeats)
    busy = watch.stop()
    decode, decoded = decode_on_device(small)
    figures = {
        "network": passes * choice.batch_tiles / network,
        "ours": tiles / ours,
        "nvjpeg": decoded / seconds(decode, repeats),
    }
    rounded: dict[str, object] = {name: round(rate, 1) for name, rate in figures.items()}
    rounded |= {"busy": busy, "runtime": choice.as_record(), "readers": readers}
    rounded["ours_over_network"] = round(figures["ours"] / figures["network"], 3)
    return rounded


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--quick", action="store_true", help="a smaller slide and fewer repeats")
    parser.add_argument("--backbones", nargs="+", default=["vit_large_patch16_224", "resnet50"])
    parser.add_argument("--work", type=Path, help="where mosaics are kept")
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.", file=sys.stderr)
        raise SystemExit(3)
    work = args.work or Path(tempfile.gettempdir()) / "slidetriage-benchmarks"
    work.mkdir(parents=True, exist_ok=True)
    figures = {name: measure(name, args, work) for name in args.backbones}
    if args.json:
        print(json.dumps({"device": torch.cuda.get_device_name(), **figures}))
        return
    print(torch.cuda.get_device_name(), np.__version__)
    for name, part in figures.items():
        print(name, *(f"{key} {value}" for key, value in part.items()), sep="\n  ")


if __name__ == "__main__":
    main()
