"""Loaded at the start of every Python process of a run under test: faults that strace cannot time.

FAULTS_FILE names a file. When any process has read FAULTS_AT times from it by `os.pread` within the
function FAULTS_IN, FAULTS_DO happens, once in the whole run: the file FAULTS_MARK says that it did.

    fail     that read fails, as on a disk that is tired
    stall    that read takes a minute
    hang     that read takes a minute, and so does every one after it
    drop     for five seconds every use of the file fails as on a share that is gone
    break    from then on every use of the file fails as on a disk that is broken
    swap     another file, FAULTS_OTHER, takes its place
    vanish   the folder FAULTS_OTHER is removed

Under faketime, `time.sleep` waits by select(2) instead: faketime 0.9.10 takes the monotonic
deadline that Python 3.11 sleeps to for one of the clock it fakes, and sleeps for years or fails
with EINVAL (https://github.com/wolfcw/libfaketime/issues/426), which no clock that jumps does.
"""

import builtins
import errno
import io
import os
import select
import shutil
import sys
import time

STALL_S = 60.0
FAILS = {"drop": (errno.ESTALE, 5.0), "break": (errno.EIO, float("inf"))}
"""With what, and for how many seconds."""


def within(name: str) -> bool:
    """Whether a function of that name is being carried out."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def install(file: str, do: str, at: int, function: str, mark: str, other: str) -> None:
    """Put the faults between this process and the file."""
    plain = {"pread": os.pread, "open": os.open, "stat": os.stat, "io": io.open}
    reads = 0

    def concerns(target: object) -> bool:
        if isinstance(target, int):
            try:
                return os.readlink(f"/proc/self/fd/{target}") == file
            except OSError:
                return False
        return isinstance(target, str | bytes | os.PathLike) and os.fsdecode(target) == file

    def check(target: object) -> None:
        if do not in FAILS or not concerns(target):
            return
        try:
            since = time.time() - plain["stat"](mark).st_mtime
        except FileNotFoundError:
            return
        number, seconds = FAILS[do]
        if since < seconds:
            raise OSError(number, os.strerror(number), file)

    def act() -> None:
        try:
            os.close(plain["open"](mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        if do == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO), file)
        if do == "stall":
            time.sleep(STALL_S)
        elif do == "swap":
            os.replace(other, file)
        elif do == "vanish":
            shutil.rmtree(other)

    def pread(handle, length, offset, /):
        nonlocal reads
        if concerns(handle) and within(function):
            reads += 1
            if reads == at:
                act()
            if do == "hang" and os.path.exists(mark):
                time.sleep(STALL_S)
        check(handle)
        return plain["pread"](handle, length, offset)

    def checked(name):
        def call(target, *arguments, **options):
            check(target)
            return plain[name](target, *arguments, **options)

        return call

    os.pread, os.open, os.stat = pread, checked("open"), checked("stat")
    io.open = builtins.open = checked("io")


def sleep(seconds, /):
    """Sleep without an absolute deadline."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


if os.environ.get("FAKETIME_TIMESTAMP_FILE"):
    time.sleep = sleep

if os.environ.get("FAULTS_FILE"):
    install(
        os.environ["FAULTS_FILE"],
        os.environ["FAULTS_DO"],
        int(os.environ["FAULTS_AT"]),
        os.environ["FAULTS_IN"],
        os.environ["FAULTS_MARK"],
        os.environ.get("FAULTS_OTHER", ""),
    )
