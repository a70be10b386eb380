"""The mapping file keeps every slide's number and path, and nobody else can read it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from slidetriage.errors import OutputError
from slidetriage.workflows.ledger.registry import Registry
from slidetriage.workflows.sources import SlideRequest


def reopen(folder: Path) -> list[SlideRequest]:
    with Registry.open(folder) as registry:
        return registry.requests


def lines(folder: Path) -> list[bytes]:
    return (folder / "private" / "slides.jsonl").read_bytes().splitlines(keepends=True)


def test_a_slide_keeps_its_row(tmp_path: Path) -> None:
    asked = [
        SlideRequest(Path("/data/a.svs"), "a"),
        SlideRequest(
            Path("/data/b.svs"), "b", 0.25, "manifest", "patient 7", sha256="f" * 64, priority=3
        ),
        SlideRequest(Path("/data/c.svs"), "c", problem=("E_BAD_MPP", "mpp is 'x'.")),
    ]
    with Registry.open(tmp_path / "run") as registry:
        assert [registry.add(request) for request in asked] == [0, 1, 2]
        assert [registry.add(request) for request in reversed(asked)] == [2, 1, 0]
        assert len(registry) == 3
    assert len(lines(tmp_path / "run")) == 3
    assert reopen(tmp_path / "run") == [
        replace(request, row=row) for row, request in enumerate(asked)
    ]


def test_a_slide_asked_for_anew_keeps_its_row_and_the_last_holds(tmp_path: Path) -> None:
    first = SlideRequest(Path("/data/a.svs"), "a")
    changes = [
        replace(first, mpp=0.5),
        replace(first, name="b"),
        replace(first, patient_id="p"),
        replace(first, priority=1),
    ]
    for number, request in enumerate([first, *changes], start=1):
        with Registry.open(tmp_path) as registry:
            assert registry.add(request) == 0
            assert registry.add(request) == 0
        assert len(lines(tmp_path)) == number
        assert reopen(tmp_path) == [replace(request, row=0)]


def test_a_relative_path_is_the_same_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Registry.open(tmp_path) as registry:
        assert registry.add(SlideRequest(Path("a.svs"), "a")) == 0
        assert registry.add(SlideRequest(tmp_path / "a.svs", "a")) == 0
        assert registry.requests[0].path == tmp_path / "a.svs"


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.svs", b"new\nline\x1b.svs", "ünï 中文.svs".encode(), b'"row":5.svs', b" .svs"],
)
def test_any_name_comes_back_byte_for_byte(tmp_path: Path, name: bytes) -> None:
    path = Path("/data") / os.fsdecode(name)
    request = SlideRequest(path, path.stem, patient_id="p\udcff")
    with Registry.open(tmp_path) as registry:
        registry.add(request)
    (line,) = lines(tmp_path)
    orjson.loads(line)
    (found,) = reopen(tmp_path)
    assert os.fsencode(found.path) == b"/data/" + name
    assert found == replace(request, row=0)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    private = tmp_path / "run" / "private"
    private.mkdir(parents=True, mode=0o755)
    (private / "slides.jsonl").touch(mode=0o644)
    with Registry.open(tmp_path / "run") as registry:
        registry.add(SlideRequest(Path("/a"), "a"))
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "slides.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("planted", ["run", "run/private", "run/private/slides.jsonl"])
def test_nothing_is_written_through_a_planted_link(tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    if planted.endswith("jsonl"):
        victim.write_text("precious")
    else:
        victim.mkdir(mode=0o755)
    link = tmp_path / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)
    with pytest.raises(OutputError, match="link"):
        Registry.open(tmp_path / "run")
    assert victim.read_text() == "precious" if victim.is_file() else not list(victim.iterdir())
    assert stat.S_IMODE(victim.stat().st_mode) != 0o700


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        for number in range(3):
            registry.add(SlideRequest(Path(f"/{number}"), "x"))
    file = tmp_path / "private" / "slides.jsonl"
    whole = file.read_bytes()
    last = len(lines(tmp_path)[-1])
    for cut in (1, last // 2, last - 1):
        file.write_bytes(whole[:-cut])
        with Registry.open(tmp_path) as registry:
            assert len(registry) == 2
            assert registry.add(SlideRequest(Path("/2"), "x")) == 2
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n", b"[]\n", b'{"row":0}\n', b'{"name":"x","path":"/x","row":7}\n',
        b'{"name":"x","path":{"base64":"?"},"row":0}\n', b'{"name":"x","path":"/x","row":true}\n',
        b'{"name":"x","path":5,"row":0}\n', b"\n",
    ],
)  # fmt: skip
def test_a_damaged_line_is_told(tmp_path: Path, line: bytes) -> None:
    with Registry.open(tmp_path) as registry:
        registry.add(SlideRequest(Path("/a"), "a"))
    with (tmp_path / "private" / "slides.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(OutputError, match="line 2") as caught:
        Registry.open(tmp_path)
    assert caught.value.code == "E_LEDGER"
    assert "garbage" not in str(caught.value)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        registry.add(SlideRequest(Path("/a"), "a"))
    file = tmp_path / "private" / "slides.jsonl"
    record = orjson.loads(file.read_bytes())
    file.write_bytes(orjson.dumps(record | {"colour": "blue"}) + b"\n")
    assert reopen(tmp_path) == [SlideRequest(Path("/a"), "a", row=0)]


def test_what_is_synced_is_on_the_disk(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path)
    registry.add(SlideRequest(Path("/a"), "a"))
    registry.sync()
    assert len(lines(tmp_path)) == 1
    registry.close()
    registry.close()


def test_many_slides_are_lines_of_bounded_size(tmp_path: Path) -> None:
    """Ten thousand are a matter of a second; none is written twice."""
    asked = [SlideRequest(Path(f"/data/{n % 10}/{n}.svs"), f"{n}") for n in range(10_000)]
    for _ in range(2):
        with Registry.open(tmp_path) as registry:
            assert [registry.add(request) for request in asked] == list(range(10_000))
    assert len(lines(tmp_path)) == 10_000
    assert max(map(len, lines(tmp_path))) < 250


def test_a_disk_that_refuses_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(tmp_path)
    registry.add(SlideRequest(Path("/a"), "a"))

    def refuse(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OutputError, match="No space left"):
        registry.sync()
    monkeypatch.undo()
    registry.close()
    assert len(lines(tmp_path)) == 1
