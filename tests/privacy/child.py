"""A run as a process of its own: the command line, with logs and Dask's keys written down.

Arguments: a file of logs, a file of the scheduler's task keys, then those of `slidetriage run`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from distributed import Scheduler


def main() -> None:
    logs, keys, *arguments = sys.argv[1:]
    handler = logging.FileHandler(logs)
    handler.setLevel(logging.DEBUG)
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.DEBUG, handlers=[handler, screen])
    new_task = Scheduler.new_task

    def told(self: Scheduler, key: object, *rest: object, **more: object) -> object:
        with Path(keys).open("a") as file:
            file.write(f"{key!r} {rest!r} {more!r}\n")
        return new_task(self, key, *rest, **more)

    Scheduler.new_task = told
    from slidetriage.workflows import cli

    sys.argv = ["slidetriage", "run", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
