"""The options that several commands of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from slidetriage.errors import UsageError

Slides = Annotated[
    list[str], typer.Argument(help="Files, folders, globs, or a CSV with a column 'path'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results; made if missing.")]
Model = Annotated[
    str, typer.Option("--model", help="A shipped bundle's name, or the folder of a bundle.")
]
Mpp = Annotated[
    float | None,
    typer.Option("--mpp", help="um per pixel, for slides whose file does not say or is wrong."),
]
Engine = Annotated[
    str, typer.Option("--engine", help="dask (several processes) or serial (this one).")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes on this machine; one per core or GPU."),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="A running Dask scheduler, tls://host:port.")
]
Tissue = Annotated[
    str, typer.Option("--tissue", help="Tissue masker: slidetriage, otsu or morphological.")
]
MinTissue = Annotated[
    float, typer.Option("--min-tissue", help="Share of a tile that must be tissue.")
]
Overlap = Annotated[
    float, typer.Option("--overlap", help="Share of a tile's side that neighbours share.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="Of the encoder: auto, float32, bfloat16 or float16 (GPU)."),
]
NgffVersion = Annotated[
    str, typer.Option("--ngff", help="OME-Zarr version: 0.5, or 0.4 for QuPath.")
]
KeepFeatures = Annotated[
    bool, typer.Option("--keep-features", help="Publish features.zarr with each slide.")
]
Deidentify = Annotated[
    bool,
    typer.Option("--deidentify", help="Tell no file's name: slides get ids and row numbers."),
]


DRIVERS = ("/dev/nvidia*", "/dev/nvhost*", "/dev/nvgpu*", "/dev/dxg", "/dev/kfd")
"""What a driver of GPUs leaves on Linux: NVIDIA's, that of its small boards, WSL's, AMD's."""


def choose_device(wanted: str) -> str:
    """The device that was asked for; `auto` is the first GPU where there is one."""
    if wanted == "auto":
        return "cuda" if has_cuda() else "cpu"
    if wanted.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(
            f"There is no device {wanted!r}.", mend="Choose auto, cpu, cuda or cuda:N."
        )
    if wanted != "cpu" and not has_cuda():
        raise UsageError("There is no CUDA device here.", mend="Choose --device cpu or auto.")
    return wanted


def has_cuda(drivers: Sequence[str] = DRIVERS) -> bool:
    """Whether torch finds a GPU; it takes seconds to import and is not asked without a driver."""
    if sys.platform == "linux" and not any(glob(pattern) for pattern in drivers):
        return False
    import torch

    return torch.cuda.is_available()
