"""Ways to spoil a slide: its numbers, its text, its data, its length."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .seeds import Seed
from .tiff_places import COUNTS, OFFSETS, Entry, Number, Places, find_places

MOST_MUTATIONS = 3

Mutation = Callable[[bytearray, Random, Places, bytes], str]
"""Spoils content, and says how; `bytes` is another sound file to take parts from."""

SHAPES = (254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 330, 338,
          339, 347, 529, 530, 532)  # fmt: skip
"""Tags that decide how a file is decoded."""

SCALES = (
    b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-308", b"0,25", b"\xff\xfe", b"", b" ", b"9" * 40,
    b"0x10", b"2.0.0", b"\x00", "\u0662".encode(), b"1e9", b"-0.0", b"%s%n",
)  # fmt: skip
"""What may stand where a number should."""


def mutate(seed: Seed, seeds: list[Seed], random: Random) -> tuple[dict[str, bytes], list[str]]:
    """The files of a slide with something wrong, and what was done to them."""
    files = dict(seed.files)
    said = []
    other = next(iter(random.choice(seeds).files.values()))
    for _ in range(random.randint(1, MOST_MUTATIONS)):
        name = random.choice(list(files))
        content = bytearray(files[name])
        places = find_places(files[name], ndpi=name.endswith(".ndpi"))
        chosen = random.choice(choose_from(name, places))
        if not content:
            break
        said.append(f"{name}: {chosen(content, random, places, other)}")
        files[name] = bytes(content)
    return files, said


def choose_from(name: str, places: Places) -> list[Mutation]:
    """The mutations that fit a file; those of its structure come more often."""
    anywhere: list[Mutation] = [flip_bits, cut, splice, zero_sector, drop_bytes, insert_bytes]
    if places.entries:
        aimed: list[Mutation] = [
            set_value, set_value, set_shape, set_shape, set_count, set_kind, set_tag, set_link,
            set_length, set_place, set_place, swap_entries, spoil_data, spoil_data, spoil_jpeg,
            set_text, flip_in_tables,
        ]  # fmt: skip
        return anywhere + aimed
    if name.endswith((".ini", ".dcm", ".mrxs", ".dat")):
        return [*anywhere, set_text, set_word, set_word, set_word, spoil_jpeg]
    return [*anywhere, set_word, spoil_jpeg]


def odd_number(random: Random, size: int, length: int) -> int:
    """A number that breaks something, or may."""
    bits = 8 * size
    choices = (
        0, 1, 2, 3, 7, 8, 15, 16, 17, 255, 256, 257, 4096, 65535, 65536, 100_000, 1_000_000,
        length - 1, length, length + 1, length // 2, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
        (1 << 63) - 1, (1 << 64) - 1, 1 << random.randrange(bits), random.getrandbits(bits),
        random.randrange(length),
    )  # fmt: skip
    return random.choice(choices) & ((1 << bits) - 1)


def put(content: bytearray, number: Number, value: int) -> None:
    """Write a number where it stands; one past the end is left out."""
    if number.at + number.size <= len(content):
        content[number.at : number.at + number.size] = value.to_bytes(number.size, "little")


def set_value(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Give a tag another value."""
    return _set_value(content, random, random.choice(places.entries))


def set_shape(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """The same for a tag that decides how the file is decoded."""
    shapes = [entry for entry in places.entries if entry.tag in SHAPES]
    return _set_value(content, random, random.choice(shapes or places.entries))


def _set_value(content: bytearray, random: Random, entry: Entry) -> str:
    if not entry.values:
        return "nothing"
    number = random.choice(entry.values)
    value = odd_number(random, number.size, len(content))
    put(content, number, value)
    return f"value of tag {entry.tag} at {number.at} is {value}"


def set_count(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Say that a tag has more or fewer values."""
    entry = random.choice(places.entries)
    value = odd_number(random, entry.count.size, len(content))
    put(content, entry.count, value)
    return f"count of tag {entry.tag} is {value}"


def set_kind(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Say that a tag's values are of another kind."""
    entry, value = random.choice(places.entries), random.randrange(20)
    put(content, entry.kind, value)
    return f"kind of tag {entry.tag} is {value}"


def set_tag(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Make of a tag another one; what it was is missing then."""
    entry = random.choice(places.entries)
    value = random.choice((*SHAPES, 270, 282, 283, 296, 34675, 65420, 65535, 0))
    put(content, Number(entry.at, 2), value)
    return f"tag {entry.tag} becomes {value}"


def set_link(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Let a directory follow that is elsewhere, or itself."""
    number = random.choice(places.links)
    somewhere = int.from_bytes(content[4:8], "little")
    near = (somewhere, random.choice(places.lengths).at if places.lengths else 0, len(content) - 2)
    value = random.choice((odd_number(random, 4, len(content)), *near))
    put(content, number, value)
    return f"link at {number.at} is {value}"


def set_length(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Say that a directory has more or fewer tags."""
    number = random.choice(places.lengths)
    value = odd_number(random, number.size, len(content))
    put(content, number, value)
    return f"length of the directory at {number.at} is {value}"


def set_place(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Let some tiles lie elsewhere or have another length."""
    tables = [entry for entry in places.entries if entry.tag in OFFSETS + COUNTS and entry.values]
    if not tables:
        return "nothing"
    entry = random.choice(tables)
    numbers = random.choices(entry.values, k=random.choice((1, 1, 3, 20)))
    for number in numbers:
        put(content, number, odd_number(random, number.size, len(content)))
    return f"{len(numbers)} places of tag {entry.tag}"


def swap_entries(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Exchange two tags, or write one over the other."""
    one, two = random.choice(places.entries), random.choice(places.entries)
    size = min(one.size, two.size)
    kept = content[one.at : one.at + size]
    content[one.at : one.at + size] = content[two.at : two.at + size]
    if random.random() < 0.5:
        content[two.at : two.at + size] = kept
    return f"tags {one.tag} and {two.tag} are exchanged"


def spoil_data(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Flip bits in a tile, zero it, or cut it short with noise."""
    if not places.data:
        return flip_bits(content, random, places, other)
    many = random.choice((1, 1, 2, 8, len(places.data)))
    for start, length in random.choices(places.data, k=many):
        how = random.randrange(4)
        begin = start + random.randrange(length)
        if how == 0:
            for _ in range(random.choice((1, 4, 64))):
                content[start + random.randrange(length)] ^= 1 << random.randrange(8)
        elif how == 1:
            content[start : start + length] = bytes(length)
        elif how == 2:
            content[begin : start + length] = random.randbytes(start + length - begin)
        else:
            content[start : start + min(length, 64)] = random.randbytes(min(length, 64))
    return f"data of {many} tiles"


def spoil_jpeg(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Lie in the headers of a JPEG or JPEG 2000 stream: sizes, samples, tables."""
    marks = (b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdb", b"\xff\xda", b"\xff\xdd",
             b"\xff\x51", b"\xff\x52", b"\xff\x5c", b"\xff\xee", b"\xff\x90")  # fmt: skip
    found = [at for mark in marks for at in _all(content, mark)]
    if not found:
        return flip_bits(content, random, places, other)
    for at in random.choices(found, k=random.choice((1, 1, 5))):
        begin = min(len(content) - 1, at + 1 + random.randrange(24))
        width = random.choice((1, 2, 2, 4))
        value = odd_number(random, width, len(content)).to_bytes(width, "big")
        content[begin : begin + width] = value[: len(content) - begin]
    return "headers of compressed data"


def _all(content: bytearray, mark: bytes) -> list[int]:
    found, at = [], content.find(mark)
    while at >= 0 and len(found) < 64:
        found.append(at)
        at = content.find(mark, at + 1)
    return found


def set_text(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Write something odd where a number or a name stands in text."""
    equals = [at for mark in (b"= ", b"=", b'="', b"|") for at in _all(content[: 1 << 20], mark)]
    texts = [entry.values[1].at for entry in places.entries if entry.text and len(entry.values) > 1]
    spots = equals + texts
    if not spots:
        return flip_bits(content, random, places, other)
    at = random.choice(spots) + 1
    text = random.choice(SCALES)
    if places.entries:
        content[at : at + len(text)] = text[: len(content) - at]  # nothing else may move
    else:
        end = content.find(b"\n", at)
        content[at : end if 0 <= end - at < 80 else at + 1] = text
    return f"text at {at} is {text!r}"


def set_word(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Set numbers of 2 or 4 bytes near the file's start, where headers are."""
    reach = min(len(content), random.choice((64, 512, 2048, len(content))))
    for _ in range(random.choice((1, 1, 3))):
        size = random.choice((1, 2, 4))
        value = odd_number(random, size, len(content))
        put(content, Number(random.randrange(reach), size), value)
    return f"words within {reach}"


def flip_in_tables(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Flip bits in directories."""
    for _ in range(random.choice((1, 2, 8))):
        entry = random.choice(places.entries)
        at = entry.at + random.randrange(entry.size)
        if at < len(content):
            content[at] ^= 1 << random.randrange(8)
    return "bits in directories"


def flip_bits(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Flip bits anywhere."""
    many = random.choice((1, 8, 64))
    for _ in range(many):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return f"{many} bits"


def cut(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Cut the file short: anywhere, near its end, or right at a structure."""
    edges = [entry.at for entry in places.entries] + [start for start, _ in places.data]
    near = max(0, len(content) - random.randrange(1, 600))
    end = random.choice((random.randrange(len(content)), near, random.choice(edges or [near])))
    del content[min(end, len(content)) :]
    return f"cut to {len(content)}"


def splice(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Copy a part of this or of another file over a part."""
    source = random.choice((bytes(content), other))
    length = random.choice((16, 256, 4096))
    start, to = random.randrange(len(source)), random.randrange(len(content))
    part = source[start : start + length]
    content[to : to + len(part)] = part
    return f"{len(part)} bytes spliced in at {to}"


def zero_sector(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Zero sectors, as a bad disk or an unfinished copy does."""
    start = random.randrange(len(content)) // 512 * 512
    end = min(len(content), start + random.choice((512, 512, 4096, len(content))))
    content[start:end] = bytes(end - start)
    return f"zeros from {start} to {end}"


def drop_bytes(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Leave some bytes out, so that all behind them moves."""
    at = random.randrange(len(content))
    del content[at : at + random.choice((1, 2, 7, 512))]
    return f"bytes left out at {at}"


def insert_bytes(content: bytearray, random: Random, places: Places, other: bytes) -> str:
    """Put some bytes in, so that all behind them moves."""
    at = random.randrange(len(content))
    content[at:at] = random.randbytes(random.choice((1, 2, 7, 512)))
    return f"bytes put in at {at}"
