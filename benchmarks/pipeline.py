"""A whole slide through a network, end to end, side by side with TIAToolbox and with its parts.

    python benchmarks/pipeline.py [--json] [--quick] [--backbone resnet18] [--threads 2]

All run the same weights on the same tiles of 224 px at 0.5 um/px, over the whole of a mosaic of
real tissue at 0.252 um/px, on the same number of cores. `ours` reads, encodes in the default
precision and stores the features, in one process; `ours_fp32` does so in float32, `ours_openslide`
in the default precision through OpenSlide. `network` and `network_fp32` encode tiles that are in
memory, `reading` reads on one thread and encodes nothing. Medians of interleaved repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bundles import make_bundle
from mosaic import default_data, make_mosaic
from reading import choose_tiles

from slidetriage.models import Bundle, Device, load_bundle
from slidetriage.tiling import TileBatch, read_tiles
from slidetriage.workflows.features import FEATURES, create_features
from slidetriage.workflows.serial import SerialEngine
from slidetriage.workflows.settings import Precision, Settings
from slidetriage.workflows.steps import BatchReceipt, EncodeStep
from slidetriage.workflows.stored import StoredBatches
from slidetriage.wsi import Slide, open_reader, open_slide

TILE_PX, MPP, SLIDE_MPP = 224, 0.5, 0.252

Run = Callable[[], None]


@contextlib.contextmanager
def run_ours(
    slide: Slide, batches: list[TileBatch], bundle: Path, work: Path, *, precision: Precision,
    cores: int,
) -> Iterator[Run]:  # fmt: skip
    """The serial engine of a run, from the first batch to the last, with features stored."""
    settings = Settings(model=str(bundle), precision=precision)
    engine = SerialEngine(settings, work, cores=cores)
    engine.load()
    staging = work / f"ours-{precision}-{slide.reader}"
    dimension = load_bundle(bundle).encoder.feature_size
    moved = [TileBatch(slide, batch.tiles, batch.start) for batch in batches]

    def run() -> None:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        make = partial(
            create_features,
            staging / FEATURES,
            tiles=sum(len(batch.tiles) for batch in batches),
            dimension=dimension,
            batch=settings.batch_tiles,
        )
        StoredBatches(staging / FEATURES).keep("benchmark", make)
        waiting = [EncodeStep("benchmark", batch, staging, "") for batch in reversed(moved)]
        in_flight = 0
        while waiting or in_flight:
            while waiting and in_flight < engine.slots:
                engine.submit(waiting.pop())
                in_flight += 1
            _, receipt = engine.next_done()
            assert isinstance(receipt, BatchReceipt), receipt
            assert receipt.unreadable == 0, receipt
            in_flight -= 1

    try:
        yield run
    finally:
        engine.close()


def run_network(bundle: Bundle, count: int) -> Run:
    """The same number of tiles from memory, in the engine's batches."""
    images = np.random.default_rng(0).integers(0, 256, (64, TILE_PX, TILE_PX, 3), dtype=np.uint8)
    bundle.prepare()

    def run() -> None:
        for start in range(0, count, 64):
            bundle.encode(images[: min(64, count - start)])

    return run


def run_reading(batches: list[TileBatch]) -> Run:
    """All tiles, on one thread, into memory that is used again."""
    memory = np.empty((64, TILE_PX, TILE_PX, 3), np.uint8)

    def run() -> None:
        reader = open_reader(batches[0].slide)
        for batch in batches:
            assert read_tiles(reader, batch, memory=memory).readable.all()

    return run


def run_tiatoolbox(
    slide: Slide, bundle: Bundle, work: Path, batches: list[TileBatch], *, cores: int
) -> Run:
    """TIAToolbox's DeepFeatureExtractor with its default loader, on the same backbone."""
    with contextlib.redirect_stdout(io.StringIO()):
        from tiatoolbox import logger
        from tiatoolbox.models.architecture.vanilla import CNNBackbone
        from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
        from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    logger.setLevel(logging.ERROR)
    encoder = bundle.card.encoder

    class Backbone(CNNBackbone):
        """Its own class of backbones, with our weights and normalisation."""

        def __init__(self) -> None:
            super().__init__("resnet18")
            # As TIAToolbox itself would hold it; ours is laid out channels last.
            self.feat_extract = bundle.encoder.backbone.to(memory_format=torch.contiguous_format)
            self.pool = torch.nn.Identity()

        @staticmethod
        def preproc(image: np.ndarray) -> np.ndarray:
            scaled = image.astype(np.float32) / 255 - np.asarray(encoder.mean, np.float32)
            return scaled / np.asarray(encoder.std, np.float32)

    network = Backbone()
    network.preproc_func = Backbone.preproc
    extractor = DeepFeatureExtractor(model=network, batch_size=32, num_workers=0, verbose=False)
    config = IOPatchPredictorConfig(
        patch_input_shape=(TILE_PX, TILE_PX), stride_shape=(TILE_PX, TILE_PX),
        input_resolutions=[{"resolution": MPP, "units": "mpp"}],
    )  # fmt: skip
    folder = work / "tiatoolbox"
    mask = np.ones((64, 64), np.uint8)
    count = sum(len(batch.tiles) for batch in batches)

    def run() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        torch.set_num_threads(cores)  # ours sets it to its own number
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            out = extractor.run(
                [slide.path], masks=[mask], ioconfig=config, patch_mode=False, save_dir=folder,
                output_type="zarr", overwrite=True, auto_get_mask=False,
            )  # fmt: skip
        import zarr

        stored = zarr.open(next(iter(out.values())) if isinstance(out, dict) else out, mode="r")
        made = stored["coordinates"].shape[0]
        assert made == count, f"TIAToolbox made {made} tiles, not {count}"

    return run


def measure(args: argparse.Namespace, work: Path) -> dict[str, float]:
    """Tiles/s of every way."""
    side = 8_192 if args.quick else 14_080
    path = make_mosaic(
        work / f"mosaic-{side}-{SLIDE_MPP}.svs", width_px=side, mpp=SLIDE_MPP, data=args.data
    )
    slide, plain = open_slide(path), open_slide(path, plain=True)
    batches = choose_tiles(slide, mpp=MPP, tile_px=TILE_PX)
    count = sum(len(batch.tiles) for batch in batches)
    folder = make_bundle(work / f"bundle-{args.backbone}", args.backbone, mpp=MPP, tile_px=TILE_PX)
    torch.set_num_threads(args.threads)
    bundles = {
        precision: load_bundle(folder, device=Device(precision=precision, threads=args.threads))
        for precision in ("auto", "float32")
    }
    figures: dict[str, float] = {"tiles": count}
    with contextlib.ExitStack() as stack:
        ours = [
            stack.enter_context(
                run_ours(which, batches, folder, work, precision=precision, cores=args.threads)
            )
            for which, precision in ((slide, "auto"), (slide, "float32"), (plain, "auto"))
        ]
        runs: dict[str, Run] = {
            "ours": ours[0],
            "ours_fp32": ours[1],
            "ours_openslide": ours[2],
            "tiatoolbox": run_tiatoolbox(
                slide, load_bundle(folder), work, batches, cores=args.threads
            ),
            "network": run_network(bundles["auto"], count),
            "network_fp32": run_network(bundles["float32"], count),
            "reading": run_reading(batches),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(args.repeats or (3 if args.quick else 5)):
            for name, run in runs.items():
                if name == "ours_openslide" and repeat > 2:
                    continue  # ten times as slow, and only for comparison
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
    figures |= {name: round(count / median(taken), 2) for name, taken in times.items()}
    figures["feature_drift"] = bundles["auto"].prepare().drift
    figures["score_drift"] = bundles["auto"].prepare().score_drift or 0.0
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--quick", action="store_true", help="a smaller slide and fewer repeats")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--backbone", default="resnet18", help="a name known to timm")
    parser.add_argument("--threads", type=int, default=2, help="cores for the network")
    parser.add_argument("--work", type=Path, help="where mosaics are kept")
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    work = args.work or Path(tempfile.gettempdir()) / "slidetriage-benchmarks"
    work.mkdir(parents=True, exist_ok=True)
    figures = measure(args, work)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.backbone}, {figures['tiles']:.0f} tiles of {TILE_PX} px, {args.threads} threads")
    for name, rate in figures.items():
        if "drift" in name:
            print(f"  {name:16} {rate:.2g}")
        elif name != "tiles":
            print(
                f"  {name:16} {rate:8.1f} tiles/s  {rate / figures['tiatoolbox']:5.2f} x TIAToolbox"
            )
    least = min(figures["network"], figures["reading"])
    print(f"  ours is {figures['ours'] / least:.3f} of the slower of reading and network")
    least = min(figures["network_fp32"], figures["reading"])
    print(f"  in float32, {figures['ours_fp32'] / least:.3f}")


if __name__ == "__main__":
    main()
