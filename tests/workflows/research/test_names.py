"""The package's public names: all of them load, none is forgotten, and none loads torch early."""

from __future__ import annotations

import subprocess
import sys

from slidetriage.workflows import research


def test_every_name_is_where_the_package_says() -> None:
    named = [name for names in research._HOME.values() for name in names]
    assert sorted(named) == research.__all__ == sorted(research.__all__)
    for name in named:
        assert getattr(research, name).__name__ == name


def test_nothing_heavy_is_loaded_for_the_names_alone() -> None:
    code = (
        "import sys, slidetriage.workflows.research.tables, slidetriage.workflows.research.bags\n"
        "heavy = {'torch', 'pandas', 'h5py', 'zarr', 'distributed'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
