"""``toucan-guard audit``: exit statuses, what is said, and whom lines are about."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.open import open_sink
from toucan_guard.cli import app
from toucan_guard.core.audit_line import dump_json
from toucan_guard.core.pseudonyms import Pseudonyms

KEY = "correct-horse-battery-staple-0123456789"
OTHER_KEY = "another-horse-battery-staple-9876543210"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command on a machine that has no guard's configuration, but for what a test sets."""

    def invoke(*arguments: Any, stdin: bytes | None = None, **variables: str) -> Any:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return invoke


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """``log("a.jsonl", events, key=…)``: a file as the guard writes it."""

    def write(name: str = "audit.jsonl", events: Any = ({},) * 5, *, key: str | None = None) -> Path:
        sink = open_sink(str(tmp_path / name), chain_key=None if key is None else key.encode())
        for number, event in enumerate(events):
            sink.write({"schema": 1, "event": "decision", "event_id": f"e-{number}", "outcome": "allow", **event})
        sink.close()
        return tmp_path / name

    return write


class TestVerify:
    def test_a_sound_record(self, run: Any, log: Any) -> None:
        path = log()
        result = run("audit", "verify", path)
        assert result.exit_code == 0, result.output
        assert "7 lines of one chain are as they were written" in result.stdout
        told = json.loads(run("audit", "verify", path, "--json").stdout)
        assert (told["tampered"], told["lines"], told["findings"], len(told["chains"])) == (False, 7, [], 1)
        assert told["chains"][0]["anchor"] in result.stdout

    def test_tampering_is_a_finding_with_its_place(self, run: Any, log: Any) -> None:
        path = log()
        path.write_bytes(path.read_bytes().replace(b'"e-2","outcome":"allow"', b'"e-2","outcome":"error"'))
        result = run("audit", "verify", path)
        assert result.exit_code == 1
        assert f"✗ {path}:4: altered." in result.stdout
        assert "not as it was written" in result.stdout
        result = run("audit", "verify", path, "--json")
        assert result.exit_code == 1
        (finding,) = json.loads(result.stdout)["findings"]
        assert (finding["kind"], finding["number"], finding["tampering"]) == ("altered", 4, True)

    def test_a_chain_without_close_is_named_and_is_no_finding(self, run: Any, log: Any) -> None:
        path = log()
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        result = run("audit", "verify", path)
        assert result.exit_code == 0
        assert "ended without close" in result.stdout

    def test_an_anchor_finds_what_was_cut_off(self, run: Any, log: Any) -> None:
        path = log()
        anchor = json.loads(run("audit", "verify", path, "--json").stdout)["chains"][0]["anchor"]
        assert run("audit", "verify", path, "--expect", anchor).exit_code == 0
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        result = run("audit", "verify", path, "--expect", anchor)
        assert result.exit_code == 1
        assert "is not in these files" in result.stdout
        assert run("audit", "verify", path, "--expect", "nonsense").exit_code == 2

    @pytest.mark.parametrize("way", ["file", "variable", "file variable"])
    def test_the_key_comes_from_a_file_or_the_environment(self, way: str, run: Any, log: Any, tmp_path: Path) -> None:
        path = log(key=KEY)
        (tmp_path / "key").write_text(KEY + "\n")
        arguments, variables = {
            "file": (["--key-file", tmp_path / "key"], {}),
            "variable": ([], {"TOUCAN_GUARD_AUDIT_CHAIN_KEY": KEY}),
            "file variable": ([], {"TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE": str(tmp_path / "key")}),
        }[way]
        result = run("audit", "verify", path, *arguments, **variables)
        assert result.exit_code == 0, result.output
        assert KEY not in result.output

    def test_a_keyed_chain_without_its_key_proves_nothing(self, run: Any, log: Any) -> None:
        path = log(key=KEY)
        path.write_bytes(path.read_bytes().replace(b'"e-2","outcome":"allow"', b'"e-2","outcome":"error"'))
        result = run("audit", "verify", path)
        assert result.exit_code == 2
        assert "Give that key with --key-file" in result.stdout
        assert "? 7 lines of one chain were made with a key, and none was given (it names the key" in result.stdout
        assert result.stderr.strip() == "Not all of it is proved: see what is marked with ?."
        assert "✓" not in result.output
        assert "as they were written" not in result.output

    def test_only_what_was_checked_is_as_it_was_written(self, run: Any, log: Any) -> None:
        result = run("audit", "verify", log("a.jsonl", ({},) * 2), log("b.jsonl", key=KEY))
        assert result.exit_code == 2
        assert "✓ 4 lines of one chain are as they were written" in result.stdout
        assert "? 7 lines of one chain were made with a key, and none was given" in result.stdout

    @pytest.mark.parametrize("order", [(KEY, OTHER_KEY), (OTHER_KEY, KEY)])
    @pytest.mark.parametrize("begins", [0, 2], ids=["whole", "without the lines that name the keys"])
    def test_a_key_that_was_changed_is_given_beside_the_new_one(
        self, order: tuple[str, str], begins: int, run: Any, log: Any, tmp_path: Path
    ) -> None:
        arguments: list[Any] = []
        for number, key in enumerate(order):
            (tmp_path / f"key-{number}").write_text(key)
            arguments += ["--key-file", tmp_path / f"key-{number}"]
        lines = [log(name, key=key).read_bytes().splitlines(keepends=True)[begins:]
                 for name, key in (("old.jsonl", KEY), ("new.jsonl", OTHER_KEY))]  # fmt: skip
        path = tmp_path / "audit.jsonl"
        path.write_bytes(b"".join(lines[0] + lines[1]))
        result = run("audit", "verify", path, *arguments)
        assert result.exit_code == 0, result.output
        assert f"✓ {14 - 2 * begins} lines of 2 chains are as they were written" in result.stdout
        half = run("audit", "verify", path, *arguments[:2])
        assert half.exit_code == 2
        assert f"✓ {7 - begins} lines of one chain are as they were written" in half.stdout
        assert f"? {7 - begins} lines of one chain fit no key that was given" in half.stdout
        for number in range(0, 14 - 2 * begins, 3):
            changed = [*lines[0], *lines[1]]
            changed[number] = changed[number].replace(b'"schema":1', b'"schema":2')
            path.write_bytes(b"".join(changed))
            result = run("audit", "verify", path, *arguments)
            assert result.exit_code == 1
            assert result.stdout.count(f"✗ {path}") == 1, "nobody else is accused"

    def test_an_opening_line_that_names_another_key_accuses_no_other_line(
        self, run: Any, log: Any, tmp_path: Path
    ) -> None:
        arguments: list[Any] = []
        for number, key in enumerate((KEY, OTHER_KEY)):
            (tmp_path / f"key-{number}").write_text(key)
            arguments += ["--key-file", tmp_path / f"key-{number}"]
        path, other = log("old.jsonl", key=KEY), log("new.jsonl", key=OTHER_KEY)
        names = [json.loads(each.read_bytes().splitlines()[0])["chain_key"].encode() for each in (path, other)]
        path.write_bytes(path.read_bytes().replace(*names, 1))
        result = run("audit", "verify", path, *arguments)
        assert (result.exit_code, result.stdout.count(f"✗ {path}")) == (1, 1)

    def test_another_key_does_not_fit(self, run: Any, log: Any, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(OTHER_KEY)
        path = log(key=KEY)
        name = json.loads(path.read_bytes().splitlines()[0])["chain_key"]
        result = run("audit", "verify", path, "--key-file", tmp_path / "key")
        assert result.exit_code == 2
        assert f"? {path}:1: unchecked. None of the lines of this chain fits the key" in result.stdout
        assert f"given (it names the key {name}): nothing is known of what is in there" in result.stdout
        assert "✓" not in result.stdout
        told = json.loads(run("audit", "verify", path, "--key-file", tmp_path / "key", "--json").stdout)
        assert (told["tampered"], told["unproved"], told["chains"][0]["key"]) == (False, True, name)
        # Where anything was altered as well, this is what counts.
        other = log("plain.jsonl", key=OTHER_KEY)
        other.write_bytes(other.read_bytes().replace(b'"e-2","outcome":"allow"', b'"e-2","outcome":"error"'))
        result = run("audit", "verify", path, other, "--key-file", tmp_path / "key")
        assert (result.exit_code, "✗ This record" in result.stdout, "? 7 lines" in result.stdout) == (1, True, True)

    @pytest.mark.parametrize("variable", ["TOUCAN_GUARD_AUDIT_CHAIN_KEY", "TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE"])
    def test_the_key_of_the_environment_counts_beside_those_in_files(
        self, variable: str, run: Any, log: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "old").write_text(OTHER_KEY)
        (tmp_path / "now").write_text(KEY)
        value = KEY if variable.endswith("KEY") else str(tmp_path / "now")
        paths = log("old.jsonl", key=OTHER_KEY), log("new.jsonl", key=KEY)
        result = run("audit", "verify", *paths, "--key-file", tmp_path / "old", **{variable: value})
        assert (result.exit_code, "✓ 14 lines of 2 chains" in result.stdout) == (0, True), result.output
        result = run("audit", "verify", *paths, "--key-file", tmp_path / "old", **{variable: "/nowhere"})
        assert (result.exit_code, variable in result.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("TOUCAN_GUARD_AUDIT_CHAIN_KEY", "short", "TOUCAN_GUARD_AUDIT_CHAIN_KEY: the secret is shorter"),
            ("TOUCAN_GUARD_AUDIT_CHAIN_KEY", "", "TOUCAN_GUARD_AUDIT_CHAIN_KEY is set but empty"),
            ("TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE", "/nowhere/key", "TOUCAN_GUARD_AUDIT_CHAIN_KEY_FILE names a file"),
        ],
    )
    def test_a_key_that_is_none_is_wrong_use(self, name: str, value: str, words: str, run: Any, log: Any) -> None:
        result = run("audit", "verify", log(), **{name: value})
        assert result.exit_code == 2
        assert words in result.output

    def test_files_in_any_order_and_each_once(self, run: Any, log: Any, tmp_path: Path) -> None:
        lines = log("whole", ({},) * 20).read_bytes().splitlines(keepends=True)
        (tmp_path / "new").write_bytes(b"".join(lines[10:]))
        (tmp_path / "old").write_bytes(b"".join(lines[:10]))
        result = run("audit", "verify", tmp_path / "new", tmp_path / "old", tmp_path / "new")
        assert (result.exit_code, "22 lines of one chain" in result.stdout) == (0, True), result.output

    def test_a_stream_of_several_programs(self, run: Any, log: Any) -> None:
        text = b"INFO: started\n" + log().read_bytes()
        assert run("audit", "verify", "-", stdin=text).exit_code == 1
        assert run("audit", "verify", "-", "--mixed", stdin=text).exit_code == 0

    def test_a_copy_is_told_and_counted_once(self, run: Any, log: Any, tmp_path: Path) -> None:
        path, copy, packed, link = log(), *(tmp_path / name for name in ("copy", "packed", "link"))
        copy.write_bytes(path.read_bytes())
        packed.write_bytes(gzip.compress(path.read_bytes()))  # whatever rotation calls it
        link.symlink_to(path)
        result = run("audit", "verify", copy, path, packed, path, link)
        assert result.exit_code == 0, result.output
        for each in (path, packed):
            assert f"· {each}:1: given twice. All 7 lines of this file stand in {copy} as well" in result.stdout
        for each in (path, link):
            assert f"· {each}: given twice. This is the same file as {path}, and is read once." in result.stdout
        assert "✓ 7 lines of one chain are as they were written." in result.stdout
        told = json.loads(run("audit", "verify", copy, path, packed, "--json").stdout)
        assert (told["lines"], told["copies"], told["tampered"], told["unproved"]) == (7, 14, False, False)
        # The report counts them once, too.
        report = [
            json.loads(run("audit", "report", *paths, "--json").stdout) for paths in ([path], [path, copy, packed])
        ]
        assert report[0]["totals"] == report[1]["totals"]
        assert report[1]["integrity"]["state"] == "intact"
        lines = path.read_bytes().splitlines(keepends=True)
        copy.write_bytes(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
        assert run("audit", "verify", path, copy).exit_code == run("audit", "verify", copy, path).exit_code == 1

    def test_a_copy_from_windows(self, run: Any, log: Any, tmp_path: Path) -> None:
        path = log()
        lines = path.read_bytes().splitlines()
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(line + b"\r\n" for line in lines))
        result = run("audit", "verify", path)
        assert (result.exit_code, result.stdout.count(str(path))) == (0, 2), result.output
        assert "(CR LF). Its lines were checked without them" in result.stdout
        assert "A byte order mark was put in front" in result.stdout
        path.write_bytes(b"\n".join([*lines[:2], lines[2] + b"\r", *lines[3:], b""]))
        result = run("audit", "verify", path)
        assert (result.exit_code, result.stdout.count(str(path))) == (1, 1), result.output
        assert f"✗ {path}:3: altered. One of the lines of this file ends as Windows writes them" in result.stdout

    def test_what_is_not_proved_is_told_where_the_tick_is(self, run: Any, log: Any) -> None:
        path, plain = log(key=KEY), log("plain")
        plain.write_bytes(plain.read_bytes().splitlines(keepends=True)[0])
        assert run("audit", "verify", plain).stdout.splitlines()[-1] == (
            "✓ one line of one chain is as it was written. Not proved: that nothing was cut off behind the last line "
            "of one chain, not closed; that one chain, without a key, was not made anew by somebody who could write "
            "the file."
        )
        result = run("audit", "verify", path, TOUCAN_GUARD_AUDIT_CHAIN_KEY=KEY)
        assert result.stdout.splitlines()[-1] == "✓ 7 lines of one chain are as they were written."
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:-1]))
        result = run("audit", "verify", path)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1] == (
            "✓ 4 lines of one chain are as they were written. Not proved: the first 2 lines of one chain, which are "
            "not here; that nothing was cut off behind the last line of one chain, not closed."
        )

    def test_a_file_without_a_line_of_a_chain_proves_nothing(self, run: Any, log: Any, tmp_path: Path) -> None:
        path, empty, wrong = log(), tmp_path / "empty", tmp_path / "wrong"
        empty.touch()
        wrong.write_bytes(bytes(range(256)) * 100)
        result = run("audit", "verify", path, empty)
        assert (result.exit_code, f"· {empty}: empty. There is no line in this file" in result.stdout) == (0, True)
        result = run("audit", "verify", path, wrong)
        assert (result.exit_code, result.stdout.count(str(wrong))) == (2, 1)
        assert f"? {wrong}:1: foreign. No line of this file is a line of a chain" in result.stdout
        assert "✓ 7 lines of one chain" in result.stdout
        wrong.write_text("INFO: started\n")
        result = run("audit", "verify", path, wrong, "--mixed")
        assert (result.exit_code, "none is the guard's" in result.stdout) == (0, True)
        result = run("audit", "verify", tmp_path)
        assert (result.exit_code, f"{tmp_path} is a folder: name the files in it" in result.stderr) == (2, True)
        result = run("audit", "verify", "-", stdin=b"")
        assert (result.exit_code, "· standard input: empty." in result.stdout) == (2, True)

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda path: path.unlink(), id="absent"),
            pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
            pytest.param(lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:999]), id="its end is gone"),
            pytest.param(lambda path: path.write_bytes(b"\x1f\x8b\x08broken"), id="broken from the beginning"),
        ],
    )
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_file_that_cannot_be_read_hides_no_verdict_on_the_others(
        self, spoil: Callable[[Path], Any], place: int, run: Any, log: Any, tmp_path: Path
    ) -> None:
        lines = log("whole", ({},) * 70).read_bytes().splitlines(keepends=True)
        files = [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
        for number, path in enumerate(files):
            path.write_bytes(b"".join(lines[number * 24 : (number + 1) * 24]))
        spoil(files[place])
        others = [path for number, path in enumerate(files) if number != place]
        result = run("audit", "verify", *files)
        # What is missing may be in there: nobody is accused.
        assert (result.exit_code, "✗" in result.stdout) == (2, False), result.output
        assert f"{files[place]} " in result.stderr
        assert f"? {files[place]}: unread. This file " in result.stdout
        if place:  # in front of all others there may be as much of the first one as could be read
            assert ("missing. " in result.stdout) is (place == 1)
        assert " are as they were written. Not proved: what stands in a file that cannot be read; " in result.stdout
        assert "There is no line in this file" not in result.stdout
        told = json.loads(run("audit", "verify", *files, "--json").stdout)
        assert (told["tampered"], told["unproved"], told["lines"] >= 48) == (False, True, True)
        # A hole within another file is evidence all the same, whatever copy of its beginning there is.
        first = others[0].read_bytes().splitlines(keepends=True)
        others[0].write_bytes(b"".join([*first[:5], *first[6:]]))
        (tmp_path / "0").write_bytes(b"".join(first[:5]))
        for given in (files, [tmp_path / "0", *files]):
            result = run("audit", "verify", *given)
            assert (result.exit_code, result.stdout.count("dropped. One line of this chain")) == (1, 1), result.output

    @pytest.mark.parametrize("at", range(40, 2000, 97))
    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda packed, at: packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1 :], id="a bit"),
            pytest.param(lambda packed, at: packed[:at] + packed[at + 9 :], id="bytes are gone"),
            pytest.param(lambda packed, at: packed[:at] + bytes(len(packed) - at), id="zeros"),
        ],
    )
    def test_what_a_damaged_file_says_accuses_nobody(
        self, damage: Callable[[bytes, int], bytes], at: int, run: Any, log: Any, tmp_path: Path
    ) -> None:
        """Its checksum stands at its end: what was unpacked before is read, and is not what was packed."""
        events = [{"token_id": f"{number * 0x9E3779B97F4A7C15 % 2**64:x}"} for number in range(60)]
        lines = log("whole", events).read_bytes().splitlines(keepends=True)
        one, two = tmp_path / "1.gz", tmp_path / "2"
        one.write_bytes(damage(gzip.compress(b"".join(lines[:40])), at))
        two.write_bytes(b"".join(lines[40:]))
        result = run("audit", "verify", one, two)
        assert (result.exit_code, "✗" in result.stdout) == (2, False), result.output
        assert f"? {one}: unread. This file cannot be read" in result.stdout
        assert ("but for what is marked as damaged" in result.stdout) is (": damaged. " in result.stdout)
        # What was done to another file is evidence all the same.
        two.write_bytes(b"".join([*lines[40:50], *lines[51:]]))
        result = run("audit", "verify", one, two)
        assert (result.exit_code, result.stdout.count("✗ ")) == (1, 2), result.output

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda packed: packed[:-5], id="its end is gone"),
            pytest.param(lambda packed: packed + b"x" * 40, id="something stands behind it"),
            pytest.param(lambda packed: packed + b"\x1f\x8b\x09" + b"x" * 40, id="something packed otherwise"),
        ],
    )
    def test_what_was_altered_before_it_was_packed_is_evidence_though_the_file_is_not_read_to_its_end(
        self, spoil: Callable[[bytes], bytes], run: Any, log: Any
    ) -> None:
        path = log()
        path.write_bytes(spoil(gzip.compress(path.read_bytes())))
        assert run("audit", "verify", path).exit_code == 2
        altered = log("altered")
        altered.write_bytes(spoil(gzip.compress(altered.read_bytes().replace(b'"e-2","outcome":"allow"', b'"e-2"'))))
        result = run("audit", "verify", altered)
        assert (result.exit_code, "altered. This line is not what was written." in result.stdout) == (1, True)

    def test_a_file_that_is_read_up_to_a_line_that_was_cut_accuses_nobody(self, run: Any, tmp_path: Path) -> None:
        chain = Chain(None, settings=None, dump=dump_json)
        event = {"schema": 1, "event": "decision", "outcome": "allow"}
        lines = [chain.link(chain.begin()), chain.link(event), chain.link(event)[:90] + b"\n"]
        chain.cut(90)
        more = [chain.link({**event, "token_id": os.urandom(700).hex()}) for _ in range(99)]
        packed = gzip.compress(b"".join(lines), mtime=0)[:-8]
        path = tmp_path / "audit.jsonl.gz"
        path.write_bytes(gzip.compress(b"".join([*lines, *more])))
        assert run("audit", "verify", path).exit_code == 0
        path.write_bytes(packed)
        result = run("audit", "verify", path)
        assert (result.exit_code, f"· {path}:3: cut. " in result.stdout) == (2, True), result.output

    def test_a_line_that_somebody_else_holds_may_be_in_what_cannot_be_read(
        self, run: Any, log: Any, tmp_path: Path
    ) -> None:
        path, gone = log(), tmp_path / "gone"
        anchor = json.loads(run("audit", "verify", path, "--json").stdout)["chains"][0]["anchor"]
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        assert run("audit", "verify", path, "--expect", anchor).exit_code == 1
        result = run("audit", "verify", path, gone, tmp_path / "other", "--expect", anchor)
        assert (result.exit_code, "✗" in result.stdout) == (2, False)
        assert f"It may be in {gone} or 1 more, which could not be read." in result.stdout

    def test_very_many_findings_are_told_in_part(self, run: Any, log: Any) -> None:
        path = log(events=({},) * 150)
        path.write_bytes(path.read_bytes().replace(b'"allow"', b'"error"'))
        result = run("audit", "verify", path)
        assert (result.exit_code, result.stdout.count("✗")) == (1, 102)
        assert "… and 50 more; --json lists them." in result.stdout
        assert len(json.loads(run("audit", "verify", path, "--json").stdout)["findings"]) == 150

    @pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b\x08broken"], ids=["absent", "empty", "broken"])
    def test_nothing_to_read_is_wrong_use(self, content: bytes | None, run: Any, tmp_path: Path) -> None:
        path = tmp_path / "audit.jsonl.gz"
        if content is not None:
            path.write_bytes(content)
        assert run("audit", "verify", path).exit_code == 2

    def test_what_stands_in_a_file_cannot_move_the_cursor(self, run: Any, tmp_path: Path) -> None:
        path = tmp_path / "\x1b[31mred"
        path.write_bytes(b'\x1b[2J\x07[bold]x[/bold]{"chain"\n')
        result = run("audit", "verify", path)
        assert result.exit_code == 1
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout


class TestWho:
    EVENTS = (
        {"subject": "user-1", "token_id": "t-1", "client": "192.0.2.7", "route": "/a", "method": "GET"},
        {"subject": "user-2", "token_id": "t-2", "client": "192.0.2.7"},
        {"event": "completion", "decision_id": "e-0", "outcome": "error"},
        {"event": "completion", "decision_id": "e-1", "outcome": "error"},
        {"subject": None, "client": None},
        {"subject": "x" * 96 + "…"},
    )

    def _found(self, result: Any) -> list[str]:
        assert result.exit_code == 0, result.output
        return [json.loads(line)["event_id"] for line in result.stdout.splitlines()]

    def test_by_name(self, run: Any, log: Any) -> None:
        path = log(events=self.EVENTS)
        assert self._found(run("audit", "who", "--subject", "user-1", path, "--json")) == ["e-0", "e-2"]
        assert self._found(run("audit", "who", "--client", "192.0.2.7", path, "--json")) == ["e-0", "e-1", "e-2", "e-3"]
        assert self._found(
            run("audit", "who", "--client", "192.0.2.7", "--token-id", "t-2", path, "--json")
        ) == ["e-1", "e-3"]  # fmt: skip
        assert self._found(run("audit", "who", "--subject", "x" * 200, path, "--json")) == ["e-5"]
        assert self._found(run("audit", "who", "--subject", "x" * 90, path, "--json")) == []
        result = run("audit", "who", "--subject", "user-1", path)
        assert f"{path}:2: decision allow GET /a" in result.stdout
        assert "2 lines." in result.stdout

    @pytest.mark.parametrize("way", ["file", "variable"])
    def test_by_pseudonym_with_the_key(self, way: str, run: Any, log: Any, tmp_path: Path) -> None:
        hidden = [dict(event) for event in self.EVENTS]
        for event in hidden:
            Pseudonyms(KEY.encode()).hide(event)
        path = log(events=hidden)
        assert "user-1" not in path.read_text()
        (tmp_path / "key").write_text(KEY)
        more = ["--key-file", tmp_path / "key"] if way == "file" else []
        variables = {} if way == "file" else {"TOUCAN_GUARD_AUDIT_HMAC_KEY": KEY}
        for option, value, found in (
            ("--subject", "user-1", ["e-0", "e-2"]),
            ("--token-id", "t-2", ["e-1", "e-3"]),
            ("--client", "192.0.2.7", ["e-0", "e-1", "e-2", "e-3"]),
            ("--subject", "t-2", []),
        ):
            result = run("audit", "who", option, value, path, "--json", *more, **variables)
            assert self._found(result) == found
            assert KEY not in result.output

    def test_pseudonyms_without_the_key_are_no_answer(self, run: Any, log: Any) -> None:
        hidden = dict(self.EVENTS[0])
        Pseudonyms(KEY.encode()).hide(hidden)
        result = run("audit", "who", "--subject", "user-1", log(events=[hidden]))
        assert result.exit_code == 2
        assert "need the key" in result.output

    def test_a_copy_is_told_once(self, run: Any, log: Any, tmp_path: Path) -> None:
        path, windows, packed = log(events=self.EVENTS), tmp_path / "windows", tmp_path / "packed"
        windows.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        packed.write_bytes(gzip.compress(path.read_bytes()))
        arguments = ["audit", "who", "--subject", "user-1", path, windows, packed]
        assert self._found(run(*arguments, "--json")) == ["e-0", "e-2"]
        result = run(*arguments)
        assert result.stdout.count(str(path)) == 2
        assert result.stdout.splitlines()[-1] == "2 lines."
        assert result.stderr.strip() == "4 more are the same again in another file, byte for byte."
        # Within a file nothing stands twice: that is told as it stands, and is for `verify` to judge.
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines, lines[1]]))
        assert self._found(run("audit", "who", "--subject", "user-1", path, "--json")) == ["e-0", "e-2", "e-0"]
        # A line with another word in it is no copy.
        windows.write_bytes(lines[1].replace(b'"allow"', b'"error"'))
        assert self._found(run(*arguments[:-1], "--json")) == ["e-0", "e-2", "e-0", "e-0"]

    def test_a_file_that_cannot_be_read_hides_no_line_of_the_others(self, run: Any, log: Any, tmp_path: Path) -> None:
        path = log(events=self.EVENTS)
        result = run("audit", "who", "--subject", "user-1", tmp_path / "gone", tmp_path, path, "--json")
        assert result.exit_code == 2
        assert [json.loads(line)["event_id"] for line in result.stdout.splitlines()] == ["e-0", "e-2"]
        told = " ".join(result.stderr.split())
        assert f"{tmp_path / 'gone'} cannot be read (No such file or directory)" in told
        assert f"{tmp_path} is a folder: name the files in it" in told
        assert "was not looked through" in told

    def test_nobody_is_wrong_use(self, run: Any, log: Any) -> None:
        assert run("audit", "who", log()).exit_code == 2

    def test_lines_that_are_none_are_passed_over(self, run: Any, tmp_path: Path) -> None:
        path = tmp_path / "mixed"
        path.write_bytes(
            b'garbage\n[1]\n{"subject":1}\n{"event":"login","subject":"user-1\\u001b[2J","event_id":"x"}\n'
            b'{"schema":1,"event":"decision","subject":"user-1\\u001b[2J","event_id":"e"}\n'
        )
        assert self._found(run("audit", "who", "--subject", "user-1\x1b[2J", path, "--json")) == ["e"]
        assert "\x1b" not in run("audit", "who", "--subject", "user-1\x1b[2J", path).stdout


def test_lines_that_stand_on_one_are_all_read(run: Any, log: Any) -> None:
    path, other = (
        log(name, ({"subject": name, "time": "2026-11-01T10:00:00.000Z"},) * 3) for name in ("user-1", "user-2")
    )
    first, *rest = other.read_bytes().splitlines(keepends=True)
    lines = path.read_bytes().splitlines(keepends=True)
    # A newline that did not fit any more, and the beginning of a line of somebody who was killed.
    path.write_bytes(b"".join([*lines[:2], lines[2][:-1] + first, *rest[:2], b"\n", rest[2][:90] + lines[3]]))
    assert len(run("audit", "who", "--subject", "user-1", path, "--json").stdout.splitlines()) == 3
    assert len(run("audit", "who", "--subject", "user-2", path, "--json").stdout.splitlines()) == 2
    assert json.loads(run("audit", "report", path, "--json").stdout)["totals"]["allowed"] == 5


def test_files_that_are_given_newest_first_lose_completions_and_it_is_said(run: Any, log: Any) -> None:
    old = log("old", ({"subject": "user-1"},))
    new = log("new", ({"event": "completion", "decision_id": "e-0"},))
    whole = run("audit", "who", "--subject", "user-1", old, new, "--json")
    assert (len(whole.stdout.splitlines()), whole.stderr.strip()) == (2, "")
    lost = run("audit", "who", "--subject", "user-1", new, old, "--json")
    assert (len(lost.stdout.splitlines()), "give the older files first" in lost.stderr) == (1, True)
    assert run("audit", "who", "--subject", "user-2", new, old).stderr.strip() == ""
    copy = new.with_name("copy")
    copy.write_bytes(new.read_bytes())
    found = run("audit", "who", "--subject", "user-1", new, old, copy, "--json")
    assert (len(found.stdout.splitlines()), found.stderr.strip()) == (2, "")


def test_the_schema_is_printed(run: Any) -> None:
    result = run("audit", "schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "A line of the record of toucan_guard"


@pytest.mark.parametrize("rest", [b"{", b'{"chain"', b'{"chain":"01'], ids=["a byte", "some", "more"])
def test_the_beginning_of_another_line_behind_a_line_hides_it_from_nobody(rest: bytes, run: Any, log: Any) -> None:
    """Without the key: ``verify`` says where something was begun, and all commands read the line in front of it."""
    path = log(events=({"subject": "user-1", "time": "2026-11-01T10:00:00.000Z"},) * 3, key=KEY)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:-1] + rest + b"\n", *lines[3:]]))
    variables = {"TOUCAN_GUARD_AUDIT_CHAIN_KEY": KEY}
    told = json.loads(run("audit", "verify", path, "--json", **variables).stdout)
    assert (told["tampered"], [finding["kind"] for finding in told["findings"]]) == (False, ["cut"])
    found = run("audit", "who", "--subject", "user-1", path, "--json", **variables).stdout.splitlines()
    assert [json.loads(line)["event_id"] for line in found] == ["e-0", "e-1", "e-2"]
    made = json.loads(run("audit", "report", path, "--json", **variables).stdout)
    assert (made["totals"]["requests"], made["source"]["bad"]) == (3, 0)


EVENT = '{"schema":1,"event":"decision","outcome":"allow","time":"2026-11-01T10:00:00.000Z","subject":"user-1"}'


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(EVENT.replace('"event":', '"event": '), id="a space"),
        pytest.param(EVENT.replace('{"schema"', r'{"\u0073chema"').replace('"d', r'"\u0064'), id="escapes"),
        pytest.param(EVENT.replace('{"', '{"a":0,"').replace("decision", "completion"), id="a completion"),
        pytest.param("  " + EVENT.replace("decision", "open"), id="a beginning"),
    ],
)
def test_an_event_among_lines_of_other_programs_is_evidence(line: str, run: Any, log: Any) -> None:
    """Without the key, however it is written: else the report would count it, under a tick."""
    path = log(key=KEY)
    variables = {"TOUCAN_GUARD_AUDIT_CHAIN_KEY": KEY}
    other = '{"event":"open","time":"2026-11-01T10:00:00Z","port":8000}\nINFO\n'
    path.write_text(other + path.read_text())
    assert run("audit", "verify", path, "--mixed", **variables).exit_code == 0
    path.write_text(f"{line}\n{path.read_text()}")
    result = run("audit", "verify", path, "--mixed", **variables)
    assert (result.exit_code, f"{path}:1: inserted." in result.stdout) == (1, True)


def test_a_copied_line_that_stands_beside_another_one_is_counted_once(run: Any, log: Any, tmp_path: Path) -> None:
    """Its newline was late when the copy was made."""
    time = {"time": "2026-11-01T10:00:00.000Z"}
    one, two = (log(name, (time,) * 2).read_bytes().splitlines(keepends=True) for name in ("one", "two"))
    copy, whole = tmp_path / "copy", tmp_path / "whole"
    copy.write_bytes(b"".join([*one[:2], one[2][:-1]]))
    whole.write_bytes(b"".join([*one[:2], one[2][:-1], *two, b"\n", *one[3:]]))
    result = run("audit", "report", copy, whole, "--json")
    assert json.loads(result.stdout)["totals"]["requests"] == 4
