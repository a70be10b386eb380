"""The log shows every change to it, and goes on after a power cut."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import threading
from pathlib import Path

import pytest

from slidetriage.errors import OutputError, UsageError
from slidetriage.workflows.ledger.audit import AuditLog, read_audit, verify_audit


def write_log(path: Path, events: int = 12) -> str:
    """A sound log; returns its head."""
    with AuditLog.open(path) as log:
        for number in range(events):
            log.append("slide_ended", row=number, message=f"slide {number} ü", seconds=number / 7)
        return log.head


def test_the_format_is_a_chain_that_others_can_follow(tmp_path: Path) -> None:
    """Checked by hand: number, hash of the line before, sorted keys, one line per event."""
    path = tmp_path / "run" / "audit.jsonl"
    head = write_log(path, 3)
    lines = path.read_bytes().splitlines()
    before = "0" * 64
    for number, line in enumerate(lines):
        record = json.loads(line)
        assert (record["n"], record["prev"], record["event"]) == (number, before, "slide_ended")
        assert list(record) == sorted(record)
        assert record["time"].endswith("Z")
        before = hashlib.sha256(line).hexdigest()
    assert (len(lines), before) == (3, head)
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    assert stat.S_IMODE(path.stat().st_mode) & 0o133 == 0


def test_a_log_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    heads = [write_log(path, 5) for _ in range(3)]
    assert [record["n"] for record in read_audit(path)] == list(range(15))
    check = verify_audit(path)
    assert (check.events, check.head, check.problem) == (15, heads[-1], None)
    for head in (*heads, heads[0].upper(), "0" * 64):
        assert verify_audit(path, head=head).problem is None


def test_taking_up_does_not_read_the_whole_file(tmp_path: Path) -> None:
    """Lines longer than a block are found, too."""
    path = tmp_path / "audit.jsonl"
    for length in (10, 70_000, 300_000):
        with AuditLog.open(path) as log:
            log.append("note", text="x" * length)
    assert [record["n"] for record in read_audit(path)] == [0, 1, 2]
    assert verify_audit(path).problem is None


def tamper(lines: list[bytes], dice: random.Random) -> tuple[bytes, str]:
    """One edit of the file's bytes, and what it was."""
    kind = dice.choice(["flip", "delete", "insert", "swap", "text", "cut", "join"])
    lines = list(lines)
    at = dice.randrange(len(lines))
    if kind == "flip":
        content = bytearray(b"".join(lines))
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        return bytes(content), kind
    if kind == "delete":
        del lines[dice.randrange(len(lines) - 1)]
    elif kind == "insert":
        lines.insert(at, dice.choice([*lines, b"\n", b"{}\n", b'{"n":3}\n']))
    elif kind == "swap":
        other = dice.choice([number for number in range(len(lines)) if number != at])
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "text":
        record = json.loads(lines[at])
        record[dice.choice(["row", "message", "time", "prev", "check", "new"])] = dice.random()
        lines[at] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    elif kind == "join":
        at = dice.randrange(len(lines) - 1)
        lines[at] = lines[at][:-1] + dice.choice([b"", b" ", b"\r"])
    else:
        content = b"".join(lines)
        return content[: dice.randrange(len(content))], kind
    return b"".join(lines), kind


def test_of_a_thousand_edits_a_thousand_are_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = write_log(path)
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    dice = random.Random(14)
    seen: dict[str, int] = {}
    for _ in range(1000):
        content, kind = tamper(lines, dice)
        assert content != sound
        path.write_bytes(content)
        # The head is needed only where the end is cut off between two lines.
        whole_lines = kind == "cut" and sound.startswith(content) and content[-1:] in (b"\n", b"")
        problem = verify_audit(path, head=head if whole_lines else None).problem
        assert problem is not None, (kind, content)
        seen[kind] = seen.get(kind, 0) + 1
    assert min(seen.values()) > 80
    assert len(seen) == 7
    path.write_bytes(sound)
    assert verify_audit(path, head=head).problem is None


def test_a_log_cut_at_a_line_shows_with_the_head_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = write_log(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify_audit(path).problem is None
    assert "cut off" in (verify_audit(path, head=head).problem or "")


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_line_is_set_aside_and_told(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[3][:kept]
    path.write_bytes(b"".join(lines[:3]) + torn)
    assert len(list(read_audit(path))) == 3
    with AuditLog.open(path) as log:
        log.append("on")
    aside = tmp_path / "audit.torn-3"
    assert aside.read_bytes() == torn
    events = list(read_audit(path))
    assert [record["event"] for record in events[3:]] == ["torn", "on"]
    assert events[3]["sha256"] == hashlib.sha256(torn).hexdigest()
    assert events[3]["length"] == len(torn)
    assert verify_audit(path).problem is None
    aside.write_bytes(b"else")
    assert "audit.torn-3" in (verify_audit(path).problem or "")


@pytest.mark.parametrize("waste", [b"\0" * 5000, b"garbage\n", b"[1]\n{}\n\n\n", b"\n"])
def test_what_a_power_cut_leaves_never_stops_a_run(tmp_path: Path, waste: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    with path.open("ab") as file:
        file.write(waste)
    with AuditLog.open(path):
        pass
    assert (tmp_path / "audit.torn-2").read_bytes() == waste
    assert verify_audit(path) == verify_audit(path, head=verify_audit(path).head)
    assert [record["event"] for record in read_audit(path)][2:] == ["torn"]


def test_a_crash_while_setting_aside_is_caught_up(tmp_path: Path) -> None:
    """The torn bytes were copied and cut off, but the event was not written."""
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    (tmp_path / "audit.torn-2").write_bytes(b"half a li")
    for _ in range(2):
        with AuditLog.open(path):
            pass
    (told,) = (record for record in read_audit(path) if record["event"] == "torn")
    assert (told["n"], told["length"]) == (2, 9)


def test_text_cannot_break_a_line_or_reach_a_terminal(tmp_path: Path) -> None:
    """Newlines, escapes and bytes that are no text: one line per event, all of it printable."""
    path = tmp_path / "audit.jsonl"
    nasty = ["a\nb", "\x1b[2J", "\r\n{}", "\x9b31m", "\u2028\u2029\x85", "\u202etxt.svs", "\x7f\0"]
    with AuditLog.open(path) as log:
        for text in nasty:
            log.append("note", text=text, inner={text: [text]})
        log.append("note", text=os.fsdecode(b"\xff\xfe.svs"), large=2**70, path=Path("p"))
    content = path.read_bytes()
    assert content.decode().splitlines() == content.decode().split("\n")[:-1]
    assert all(line.isprintable() for line in content.decode().splitlines())
    records = list(read_audit(path))
    assert [record["text"] for record in records[:-1]] == nasty
    assert records[-1]["text"] == "\\udcff\\udcfe.svs"
    assert verify_audit(path).problem is None


def test_threads_append_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:

        def work(name: int) -> None:
            for _ in range(100):
                log.append("note", by=name)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        head = log.head
    assert verify_audit(path, head=head).events == 800


def test_a_full_disk_leaves_the_log_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    write = os.write
    with AuditLog.open(path) as log:
        log.append("first")

        def half(descriptor: int, content: bytes) -> int:
            if len(content) < 60:
                raise OSError(28, "No space left on device")
            return write(descriptor, content[:50])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OutputError, match="No space left"):
            log.append("lost")
        monkeypatch.undo()
        log.append("second")
    assert [record["event"] for record in read_audit(path)] == ["first", "second"]
    assert verify_audit(path).problem is None


def test_nothing_is_written_through_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "audit.jsonl").symlink_to(victim)
    with pytest.raises(OutputError, match="link"):
        AuditLog.open(tmp_path / "audit.jsonl")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError, match="no plain file"):
        AuditLog.open(tmp_path / "fifo")
    with pytest.raises(OutputError, match="cannot be written"):
        AuditLog.open(victim / "audit.jsonl")
    assert victim.read_text() == "precious"


def test_bad_questions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with pytest.raises(UsageError, match="no audit log"):
        verify_audit(path)
    with pytest.raises(UsageError, match="no audit log"):
        list(read_audit(path))
    write_log(path, 1)
    for head in ("", "abc", "g" * 64):
        with pytest.raises(UsageError, match="sha256"):
            verify_audit(path, head=head)
    with AuditLog.open(path) as log, pytest.raises(UsageError, match="prev"):
        log.append("note", prev="mine")
    with path.open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(OutputError, match="line 2") as caught:
        list(read_audit(path))
    assert caught.value.code == "E_LEDGER"


def test_an_empty_log_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        assert log.head == "0" * 64
    assert verify_audit(path).events == 0
    log.close()
    with pytest.raises(OutputError):
        log.append("late")
