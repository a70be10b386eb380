"""What a lab runs at night: every slide of a manifest, each accounted for in the morning.

    python examples/lab_batch.py slides.csv results/

The manifest is a CSV with the columns path, slide_id, mpp, patient_id; only path is needed.
"""

from __future__ import annotations

import sys

from slidetriage import Resources, Settings, triage


def main(manifest: str, out: str) -> int:
    """Triage the manifest's slides on every core; returns 0 where all were done, else 3."""
    report = triage(
        manifest,
        out,
        settings=Settings(model="breast-idc-scout", compress_geojson=True),
        resources=Resources(engine="dask"),
    )
    counts = report.counts
    print(" ".join(f"{name}={number}" for name, number in counts.items()))
    for row in report.rows:
        if row.score is None:
            print(f"look at {row.request.name}: {row.state} {row.outcome}")
    return 0 if report.complete else 3


# Dask starts worker processes, and they import this file: the guard keeps them from running it.
if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
