"""The text of an API key: ``tgk_<environment>_<key id>_<256 bits>_<checksum>``.

The prefix lets secret scanners find a key that was committed by mistake, the checksum lets them (and us) tell a key
from a word that looks like one, without asking anybody. Only the middle is secret; the id is a name, and may be
written down anywhere.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from toucan_guard.core.decisions import Deny, Reason

HEADER: Final = "x-api-key"
# No server sends these; Sec-Fetch-Mode alone is Node's ``fetch``.
BROWSER_HEADERS: Final = (b"origin", b"sec-fetch-site", b"sec-fetch-dest")
PREFIX: Final = "tgk"
SECRET_BYTES: Final = 32
KEY_ID_LENGTH: Final = 12
KEY_ID_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_SECRET_LENGTH: Final = 43  # 62**43 is just above 2**256
_CHECKSUM_LENGTH: Final = 6  # 62**6 is above 2**32
_KEY_ID: Final = re.compile(rf"[a-z0-9]{{{KEY_ID_LENGTH}}}")
_ENVIRONMENT: Final = re.compile(r"[a-z0-9]{1,16}")
_KEY: Final = re.compile(
    rf"{PREFIX}_({_ENVIRONMENT.pattern})_({_KEY_ID.pattern})"
    rf"_([0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key that is well-formed; whether anybody knows it is another question.

    Attributes:
        environment: A word of the operator's, such as ``live`` or ``test``.
        key_id: The key's public name, and the ``kid`` of the tokens that are made with it.
        text: The whole key, which is what its stored digest covers.
    """

    environment: str
    key_id: str
    text: str = field(repr=False)


def parse_api_key(text: str) -> ApiKey | None:
    """Read an API key in the one way that it is written; None for everything else.

    Never raises. The checksum is public arithmetic, so comparing it in a hurry betrays nothing.
    """
    found = _KEY.fullmatch(text)
    if found is None or _checksum(text.rpartition("_")[0]) != found[4] or _number(found[3]) >> (8 * SECRET_BYTES):
        return None
    return ApiKey(found[1], found[2], text)


def format_api_key(environment: str, key_id: str, secret: bytes) -> ApiKey:
    """Write an API key.

    Args:
        environment: 1 to 16 lower-case letters and digits.
        key_id: 12 lower-case letters and digits.
        secret: 32 random bytes.

    Raises:
        ValueError: A part is of another form.
    """
    if not is_environment(environment):
        raise ValueError("the environment of an API key is a word of 1 to 16 lower-case letters and digits")
    if not is_key_id(key_id) or len(secret) != SECRET_BYTES:
        raise ValueError(f"an API key has an id of {KEY_ID_LENGTH} characters and {SECRET_BYTES} random bytes")
    text = f"{PREFIX}_{environment}_{key_id}_{_written(int.from_bytes(secret), _SECRET_LENGTH)}"
    return ApiKey(environment, key_id, f"{text}_{_checksum(text)}")


def exposed_api_key(presented: Sequence[str], evidence: Sequence[str], *, named: bool = False) -> Deny | None:
    """Whether an API key comes out of a browser, which has no business with it; None where it does not.

    Args:
        presented: Every value of ``x-api-key``.
        evidence: The values of ``BROWSER_HEADERS``.
        named: A preflight asks whether ``x-api-key`` may be sent: the page has one.
    """
    if not evidence or not (presented or named):
        return None
    keys = [key for key in map(parse_api_key, presented) if key is not None]
    facts = {"key_id": keys[0].key_id} if keys else {}
    return Deny(
        Reason.API_KEY_EXPOSED, "an API key was sent, and a browser sent it: it is not secret any more", facts=facts
    )


def is_key_id(text: object) -> bool:
    """Whether a text has the form of a key id."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None


def is_environment(text: object) -> bool:
    """Whether a text may stand as the environment of a key."""
    return isinstance(text, str) and _ENVIRONMENT.fullmatch(text) is not None


def _checksum(text: str) -> str:
    # CRC-32 finds every change of one character; a key that was guessed fails at its digest.
    return _written(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)


def _written(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _number(text: str) -> int:
    number = 0
    for digit in text:
        number = number * len(_DIGITS) + _VALUES[digit]
    return number
