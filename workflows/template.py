"""The process that workers of this machine are forked from: it has imported what they need."""

from __future__ import annotations

import os
from multiprocessing import forkserver, get_context

METHOD = "forkserver"
"""What multiprocessing calls this way to start a process."""

# Read once, when a process begins: by numerical libraries, which else start threads that a fork
# does not copy, and by the C library, which gives freed memory back sooner.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def start_template(*, cells: bool = False) -> None:
    """Begin importing in a process apart, and return at once; does nothing the second time.

    Importing torch and the like takes seconds. Workers that are forked share its cost and its
    memory, and one that died is back at once. Called before this process imports what it needs,
    both import side by side. With `cells` it imports what nuclei are looked for with, too; where
    it began without, every worker imports that for itself.
    """
    modules = ["slidetriage.workflows.preload", "slidetriage.workflows.cells.preload"]
    get_context(METHOD).set_forkserver_preload(modules[: 1 + cells])
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def begin_imports(engine: str, scheduler: str | None = None, *, cells: bool = False) -> None:
    """Let the imports of workers begin, where a command will have workers of its own."""
    if engine == "dask" and scheduler is None:
        start_template(cells=cells)
