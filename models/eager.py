"""A tile network run by torch: on the CPU batch after batch, on a GPU with copies alongside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .precision import NumberFormat
from .tile_network import TileNetwork

_DTYPES: dict[NumberFormat, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class EagerNetwork:
    """Runs a tile network with torch on the device it lies on."""

    def __init__(self, network: TileNetwork, *, precision: NumberFormat, batch_tiles: int) -> None:
        self.batch_tiles = batch_tiles
        self._network = network
        self._dtype = _DTYPES[precision]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 -> N x D."""
        features = np.empty((len(images), self._network.feature_size), np.float32)
        for rows, batch in split_batches(images, self.batch_tiles):
            found = self.extract(torch.from_numpy(batch).to(self._network.device)).cpu()
            features[rows] = found.numpy()[: rows.stop - rows.start]
        return features

    def extract(self, images: Tensor) -> Tensor:
        """B x H x W x 3 uint8 on the network's device -> B x D float32 there.

        The images are made ready in float32 in any case. cuDNN would use TF32, of 10 bits, in
        what is called float32, and choose its algorithms by the clock.
        """
        x = self._network.prepare_images(images).contiguous(memory_format=torch.channels_last)
        reduced = self._dtype != torch.float32
        with (
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
            torch.autocast(x.device.type, self._dtype, enabled=reduced),
        ):
            return self._network.extract_features(x).float()


class StreamedNetwork(EagerNetwork):
    """The same on a GPU: the next batch is copied while one is computed, results come at the end.

    Nothing waits for the GPU in between but the reuse of a staging buffer.
    """

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 -> N x D."""
        device = self._network.device
        with torch.cuda.device(device):
            compute, copies = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
            shape = (self.batch_tiles, *images.shape[1:])
            staging = [torch.zeros(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]  # torch's
            features = torch.empty((len(images), self._network.feature_size), device=device)
            for number, start in enumerate(range(0, len(images), self.batch_tiles)):
                buffer, event = staging[number % 2], copied[number % 2]
                event.synchronize()  # its last copy must be done; returns at once if there is none
                part = images[start : start + self.batch_tiles]
                _stage(buffer, part)
                with torch.cuda.stream(copies):
                    batch = buffer.to(device, non_blocking=True)
                    event.record(copies)
                compute.wait_event(event)
                batch.record_stream(compute)  # else its memory could be given out too early
                features[start : start + len(part)] = self.extract(batch)[: len(part)]
            return features.cpu().numpy()


def split_batches(
    images: NDArray[np.uint8], batch_tiles: int
) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Rows, and the batch of exactly `batch_tiles` images that begins with them.

    The last batch is padded with black, so that no result depends on how many tiles follow.
    """
    for start in range(0, len(images), batch_tiles):
        part = np.ascontiguousarray(images[start : start + batch_tiles])
        count = len(part)
        if count < batch_tiles:
            padded = np.zeros((batch_tiles, *images.shape[1:]), np.uint8)
            padded[:count] = part
            part = padded
        yield slice(start, start + count), part


def _stage(buffer: Tensor, part: NDArray[np.uint8]) -> None:
    staged = buffer.numpy()  # the same memory
    staged[: len(part)] = part
    staged[len(part) :] = 0
