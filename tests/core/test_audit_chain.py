"""The hash chain: a line is bound to the line before it, with a key or without, and is read back as it was written."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from toucan_guard.core.audit_chain import (
    FIRST_PREVIOUS,
    MAX_CUTS,
    Cut,
    chain_begun,
    chain_secret,
    cut_of,
    hash_of,
    key_name,
    lines_on,
    linked_line,
    links_in,
    looks_linked,
    previous_of,
    read_link,
    room_of,
    seams_of,
    start_of,
)

CHAIN = "019ab2c4-5d6e-7f80-9a1b-2c3d4e5f6071"
EVENT = b'{"schema":1,"event":"decision","subject":"a\\"}b"}\n'
KEY = b"correct-horse-battery-staple-0123456789"


def _line(number: int = 7, cuts: tuple[Cut, ...] = (), secret: bytes | None = None) -> bytes:
    return linked_line(
        EVENT,
        chain=CHAIN,
        number=number,
        previous=FIRST_PREVIOUS,
        cuts=cuts,
        hashed=hash_of(secret),
        keyed=secret is not None,
    )[0]


def _body(line: bytes) -> bytes:
    return line[: line.rindex(b',"')]


def test_a_line_is_json_with_the_chain_around_the_event() -> None:
    assert json.loads(_line()) == {
        "chain": CHAIN,
        "seq": 7,
        "prev": FIRST_PREVIOUS,
        "schema": 1,
        "event": "decision",
        "subject": 'a"}b',
        "hash": hashlib.sha256(_body(_line())).hexdigest(),
    }


def test_a_keyed_line_says_mac() -> None:
    secret = chain_secret(KEY)
    body = _body(_line(secret=secret))
    line = json.loads(_line(secret=secret))
    assert "hash" not in line
    assert line["mac"] == hmac.digest(secret, body, "sha256").hex()
    assert secret != KEY


@pytest.mark.parametrize("secret", [None, chain_secret(KEY)], ids=["without a key", "keyed"])
@pytest.mark.parametrize("cuts", [(), (Cut(3, "0" * 16),), (Cut(3, "0" * 16), Cut(4000, "f" * 16))])
def test_a_line_is_read_back(secret: bytes | None, cuts: tuple[Cut, ...]) -> None:
    link = read_link(_line(12, cuts, secret).removesuffix(b"\n"))
    assert link is not None
    assert (link.chain, link.number, link.event, link.keyed, link.cuts) == (
        CHAIN,
        12,
        "decision",
        secret is not None,
        cuts,
    )
    assert link.body == _body(_line(12, cuts, secret))
    assert hash_of(secret)(link.body).hexdigest() == link.digest


def test_the_digest_depends_on_body_and_key() -> None:
    digests = {
        hash_of(secret)(body).hexdigest()
        for secret in (None, chain_secret(KEY), chain_secret(KEY + b"!"))
        for body in (b"a", b"b")
    }
    assert len(digests) == 6
    assert {previous_of(digest) for digest in digests} == {digest[:32] for digest in digests}


def test_the_name_of_a_key_is_short_and_its_own() -> None:
    names = {key_name(chain_secret(KEY + bytes([number]))) for number in range(50)}
    assert len(names) == 50
    assert {len(name) for name in names} == {8}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        EVENT[:-1],
        _line(),  # its newline is not part of it
        b" " + _line()[:-1],
        _line()[:-1] + b"\r",
        _line()[:-2],
        _line().replace(b'"seq":7', b'"seq":07')[:-1],
        _line().replace(b'"seq":7', b'"seq":-7')[:-1],
        _line().replace(b'"seq":7', b'"seq":' + b"9" * 19)[:-1],
        _line().replace(CHAIN.encode(), b"x" * 36)[:-1],
        _line().replace(b'"hash"', b'"HASH"')[:-1],
        _line().replace(b'"schema":1', b'"schema":"1"')[:-1],
    ],
)
def test_anything_else_is_no_line_of_a_chain(line: bytes) -> None:
    assert read_link(line) is None


@pytest.mark.parametrize("marks", [b'[[1,"0000000000000000",2]]', b'[1,"0000000000000000"]', b'[["0000000000000000"]'])
def test_marks_that_are_none_are_no_marks(marks: bytes) -> None:
    line = _line().replace(
        b'"prev":"' + FIRST_PREVIOUS.encode() + b'",',
        b'"prev":"' + FIRST_PREVIOUS.encode() + b'","cut":' + marks + b",",
    )[:-1]
    link = read_link(line)
    assert link is not None
    assert link.cuts == ()


def test_a_whole_line_behind_a_cut_one_is_found() -> None:
    whole = _line()[:-1]
    cut = _line(6)[:100]
    assert links_in(cut + whole) == ([cut], [read_link(whole)])
    assert links_in(cut + whole[:-1]) == ([cut, whole[:-1]], [])
    assert links_in(b"") == ([], [])
    assert lines_on(cut + whole + b"\n") == [whole]
    assert lines_on(cut + b"\n") == (cut + b"\n",)


def test_lines_that_stand_on_one_are_told_apart() -> None:
    one, two, three = (_line(number)[:-1] for number in (5, 6, 7))
    cut = _line(8)[:100]
    links = [read_link(one), read_link(two), read_link(three)]
    assert links_in(one) == ([], links[:1])
    assert links_in(one + two + three) == ([], links)
    assert links_in(cut + one + cut + two) == ([cut, cut], links[:2])
    for rest in (cut, cut[:5], cut[:12], b"{", b"x"):
        assert links_in(one + rest) == ([rest], links[:1])
        assert links_in(one + rest + two) == ([rest], links[:2])
    assert lines_on(one + two + three + b"\n") == [one, two, three]
    assert lines_on(one + b"\n") == (one + b"\n",)


@pytest.mark.parametrize("rest", [b"{", b'{"chain":', b"x", b'{"chain":"', b"\r\n"])
def test_nothing_that_is_written_behind_a_line_hides_it(rest: bytes) -> None:
    one, two = (_line(number)[:-1] for number in (5, 6))
    assert lines_on(one + rest + b"\n") == [one]
    assert lines_on(one + rest + two + rest + b"\r\n") == [one, two]
    assert lines_on(rest + b"\n") == (rest + b"\n",)


def test_what_a_chain_adds_fits_into_its_room() -> None:
    cuts = tuple(Cut(4095, "f" * 16) for _ in range(MAX_CUTS))
    for marks in ((), cuts[:1], cuts):
        assert len(_line(10**18 - 1, marks)) + 1 - len(EVENT) <= room_of(marks)


def test_the_mark_of_a_cut_line_knows_its_length_and_bytes() -> None:
    assert cut_of(b"abc") == Cut(3, hashlib.sha256(b"abc").hexdigest()[:16])
    assert cut_of(b"abd") != cut_of(b"abc")


def test_what_looks_like_ours() -> None:
    assert _line().startswith(start_of(CHAIN, 7, previous=FIRST_PREVIOUS))
    assert looks_linked(_line()[:20])
    assert looks_linked(EVENT)
    assert looks_linked(b'x {"a":1,"event":"decision"}')
    assert not looks_linked(b'INFO: 127.0.0.1 - "GET / HTTP/1.1" 200')


def test_several_lines_may_have_begun_in_a_fragment() -> None:
    assert [*seams_of(b'{"chain":"1{"ch')] == [0, 11, 15]
    assert [*seams_of(b'{"ch{{"{"chain":"1{"x":{}')] == [0, 4, 5, 7, 25]
    assert [*seams_of(b'x{"chain":{')] == [0, 1, 10, 11]
    assert [*seams_of(b"{")] == [0, 1]


def test_a_line_that_was_begun_tells_its_chain_as_far_as_it_goes() -> None:
    line = start_of(CHAIN, 7, previous="ab" * 16)
    begun = {chain_begun(line[:length]) for length in range(len(line) + 1)}
    assert begun == {CHAIN[:length] for length in range(len(CHAIN) + 1)}
    assert chain_begun(line + b'"schema":1') == CHAIN
    assert [chain_begun(other) for other in (b"x", line[:54].replace(b"seq", b"Seq"), b'{"chain":"X')] == [None] * 3
