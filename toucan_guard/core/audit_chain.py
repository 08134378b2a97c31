"""The hash chain of audit lines: how a line is linked to the one before it, and how a link is read back.

A line of a chain begins with the chain's id, the line's number in it and the first half of the digest of the line
before; it ends with a digest over all of that::

    {"chain":"019ab2…","seq":7,"prev":"60303a…","schema":1,"event":"decision",…,"hash":"9f86d0…"}

So every line can be checked by itself, and every two of them for standing side by side.

``hash`` is SHA-256: it finds accidents, and edits by people who do not make the rest of the chain anew. ``mac`` is
HMAC-SHA-256 (RFC 2104) with ``AUDIT_CHAIN_KEY``: whoever does not hold the key cannot make a line. The two have
different names, so that every line says what it is.

Where a line was cut (a full disk), the next line of its chain says how many bytes of it were written, and their
digest: ``"cut":[[211,"5e884898da280471"]]``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

MAX_CUTS: Final = 8
_HALF: Final = 32
FIRST_PREVIOUS: Final = "0" * _HALF


class Hashed(Protocol):
    """What ``hashlib`` and ``hmac`` make of bytes."""

    def hexdigest(self) -> str:
        """The digest, in lower-case hex digits."""
        ...


Hash = Callable[[bytes], Hashed]

_LINE: Final = re.compile(
    rb'(\{"chain":"([0-9a-f-]{36})","seq":(0|[1-9][0-9]{0,17}),"prev":"([0-9a-f]{32})",(?:"cut":(\[[^"{}]*(?:"[0-9a-f]{16}"[^"{}]*)*\]),)?'
    rb'("schema":[0-9]+,"event":"([a-z_]+)"(?:,.*)?)),"(hash|mac)":"([0-9a-f]{64})"\}',
    re.DOTALL,
)
_START: Final = b'{"chain":"'
_STARTS: Final = re.compile(rb'(?=\{"chain":")')
_ENDS: Final = (b'"}\n', b'"}\r\n', b'"}')
# Where a line may begin in what is not one: at its first bytes, and behind them more of it, another one, or nothing.
_SEAMS: Final = re.compile(
    b"(?=%b)" % b"|".join(re.escape(_START[:n]) + (b"" if n == len(_START) else rb"(?:\{|\Z)") for n in range(1, 11))
)
# The id, the number and the line before, as far as they stand in what may be the beginning of a line.
_BEGUN: Final = re.compile(
    rb'.{0,%d}(?P<id>[0-9a-f-]{0,36})(?:","seq":(?P<number>[0-9]{1,18})(?:,"prev":"(?P<previous>[0-9a-f]{0,%d}))?)?'
    % (len(_START), _HALF),
    re.DOTALL,
)


class Cut(NamedTuple):
    """A line that was not written whole.

    Attributes:
        length: How many bytes of it were written.
        digest: Of those bytes.
    """

    length: int
    digest: str


class Link(NamedTuple):
    """One line of a chain, read back.

    Attributes:
        chain: The chain's id.
        number: The line's number in its chain, from 0.
        previous: What the line says of the one before it.
        event: The kind of event.
        keyed: Whether the digest is an HMAC.
        digest: What the line says its digest is.
        body: What the digest is of.
        cuts: Lines before this one that were not written whole.
    """

    chain: str
    number: int
    previous: str
    event: str
    keyed: bool
    digest: str
    body: bytes
    cuts: tuple[Cut, ...]


def chain_secret(key: bytes) -> bytes:
    """The key of chains: the operator's key, bound to this use."""
    return hmac.digest(key, b"toucan_guard audit chain 1", "sha256")


def key_name(secret: bytes) -> str:
    """A name for the key of a chain, by which the right one is found again; tells nothing about the key."""
    return hmac.digest(secret, b"name", "sha256").hex()[:8]


def hash_of(secret: bytes | None) -> Hash:
    """The function that makes a line's digest of its body."""
    if secret is None:
        return hashlib.sha256
    keyed = hmac.new(secret, digestmod="sha256")

    def mac(body: bytes) -> Hashed:
        made = keyed.copy()  # the key's two blocks are hashed once
        made.update(body)
        return made

    return mac


def cut_of(fragment: bytes) -> Cut:
    """The mark of a line of which only this was written."""
    return Cut(len(fragment), hashlib.sha256(fragment).hexdigest()[:16])


def start_of(chain: str, number: int, *, previous: str) -> bytes:
    """What a line of a chain begins with."""
    return b'%b%b","seq":%d,"prev":"%b",' % (_START, chain.encode(), number, previous.encode())


def chain_begun(beginning: bytes) -> str | None:
    """The id, or as much of it as stands there, of the chain of a line that begins so; None where no line does."""
    found = _BEGUN.match(beginning)
    assert found is not None  # noqa: S101 - it fits whatever there is
    name, number, previous = (part.decode() for part in found.groups(b""))
    line = start_of(name.ljust(36, "0"), int(number or "0"), previous=previous.ljust(_HALF, "0"))
    return name if line[: len(beginning)] == beginning[: len(line)] else None


def seams_of(fragment: bytes) -> Sequence[int]:
    """Where lines may begin and end in a fragment, its own ends included: several may stand there, one behind the
    other."""
    return [0, *(found.start() for found in _SEAMS.finditer(fragment, 1)), len(fragment)]


def previous_of(digest: str) -> str:
    """What a line says of the one before it: the first 128 bits of that one's digest."""
    return digest[:_HALF]


def linked_line(
    line: bytes, *, chain: str, number: int, previous: str, cuts: Sequence[Cut], hashed: Hash, keyed: bool
) -> tuple[bytes, str]:
    """An event's line as a line of a chain, and what the next one says of it.

    Args:
        line: The event as one JSON line, its newline included, as is that of the result.
        chain: The chain's id.
        number: The line's number.
        previous: See ``previous_of``; ``FIRST_PREVIOUS`` in the first line.
        cuts: Lines before this one that were not written whole.
        hashed: See ``hash_of``.
        keyed: Whether that has a key.
    """
    marks = f'"cut":{json.dumps(cuts, separators=(",", ":"))},' if cuts else ""
    body = f'{{"chain":"{chain}","seq":{number},"prev":"{previous}",{marks}'.encode() + line[1:-2]
    digest = hashed(body).hexdigest()
    return body + f',"{"mac" if keyed else "hash"}":"{digest}"}}\n'.encode(), digest[:_HALF]


def room_of(cuts: Sequence[Cut]) -> int:
    """The most bytes that a chain adds to a line: id, number, digest, marks, and a newline in front."""
    return 208 + 32 * len(cuts)


def read_link(line: bytes) -> Link | None:
    """Read a line (without its newline); None for whatever is no line of a chain."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    body, chain, number, previous, cuts, _, event, kind, digest = found.groups()
    return Link(
        chain.decode(),
        int(number),
        previous.decode(),
        event.decode(),
        kind == b"mac",
        digest.decode(),
        body,
        () if cuts is None else _read_cuts(cuts),
    )


def links_in(line: bytes) -> tuple[Sequence[bytes], Sequence[Link]]:
    """What stands on one line (without its newline): fragments, and whole lines of chains, each in order.

    Several stand together where one was cut, or has lost its newline, and another process wrote behind it.
    """
    fragments: list[bytes] = []
    links: list[Link] = []
    # Nearly every line stands alone, and searching for a text is ten times as fast as for a pattern.
    for part in (line,) if line.find(_START, 1) < 0 else _STARTS.split(line):
        whole = read_link(part)
        rest = b"" if whole is not None else part
        if whole is None and (begins := _LINE.match(part)) is not None:
            whole, rest = read_link(begins[0]), part[begins.end() :]
        if whole is not None:
            links.append(whole)
        if rest:
            fragments.append(rest)
    return fragments, links


def line_of(link: Link) -> bytes:
    """The line that a link was read from, without its newline."""
    return link.body + b',"%b":"%b"}' % (b"mac" if link.keyed else b"hash", link.digest.encode())


def lines_on(line: bytes) -> Sequence[bytes]:
    """What is to be read of one line: itself, or the whole lines that stand on it (see ``links_in``)."""
    if line.find(_START, 1) < 0 and line.endswith(_ENDS):
        return (line,)
    _, links = links_in(line.rstrip(b"\r\n"))
    return [line_of(link) for link in links] or (line,)


def looks_linked(line: bytes) -> bool:
    """Whether a line claims to belong to a chain, or to be an audit event at all."""
    return line.startswith((_START, b'{"schema":')) or b'"event":"decision"' in line


def _read_cuts(text: bytes) -> tuple[Cut, ...]:
    try:
        cuts = tuple(Cut(int(length), str(digest)) for length, digest in json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return ()
    return cuts if len(cuts) <= MAX_CUTS else ()
