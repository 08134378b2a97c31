"""What an origin is, received and configured."""

from __future__ import annotations

import re

import pytest

from toucan_guard.core.origin_grammar import Origin, WildcardOrigin, parse_origin, parse_pattern, referer_origin

RECEIVED = [
    pytest.param("https://a.example", "https://a.example", id="plain https"),
    pytest.param("http://a.example", "http://a.example", id="plain http"),
    pytest.param("https://a.example:443", "https://a.example", id="explicit 443 equals none for https"),
    pytest.param("http://a.example:80", "http://a.example", id="explicit 80 equals none for http"),
    pytest.param("https://a.example:80", "https://a.example:80", id="80 is no default for https"),
    pytest.param("https://a.example:65535", "https://a.example:65535", id="highest port"),
    pytest.param("https://localhost:3000", "https://localhost:3000", id="localhost with a port"),
    pytest.param("https://a.example.", "https://a.example.", id="a final dot is another host, and well-formed"),
    pytest.param("https://a_b.example", "https://a_b.example", id="underscore occurs in host names"),
    pytest.param("https://-a.example", "https://-a.example", id="leading hyphen occurs in host names"),
    pytest.param("https://192.0.2.1:8443", "https://192.0.2.1:8443", id="IPv4"),
    pytest.param("https://256.com", "https://256.com", id="number in front of a name is no address"),
    pytest.param("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", id="IPv6"),
    pytest.param("https://[::]", "https://[::]", id="IPv6 of zeros"),
    pytest.param("https://[1:0:2:0:3:0:4:0]", "https://[1:0:2:0:3:0:4:0]", id="single zeros are not compressed"),
    pytest.param("https://[::ffff:7f00:1]", "https://[::ffff:7f00:1]", id="mapped IPv4 is written in hexadecimal"),
    pytest.param("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example", id="A-label"),
    pytest.param("https://xn--n3h.example", "https://xn--n3h.example", id="A-label of a symbol"),
    pytest.param("capacitor://localhost", "capacitor://localhost", id="an app's scheme"),
    pytest.param("chrome-extension://abcdefgh", "chrome-extension://abcdefgh", id="an extension"),
    pytest.param("https://" + "a." * 126 + "a", "https://" + "a." * 126 + "a", id="longest host"),
]

MALFORMED = [
    pytest.param("", id="empty"),
    pytest.param("null", id="null names nobody"),
    pytest.param("https://a.example, https://b.example", id="comma and space"),
    pytest.param("https://a.example,https://b.example", id="comma"),
    pytest.param("https://a.example https://b.example", id="space between two"),
    pytest.param(" https://a.example", id="space in front"),
    pytest.param("https://a.example ", id="space behind"),
    pytest.param("https://a.example\n", id="final newline"),
    pytest.param("https://a\t.example", id="tab that browsers drop"),
    pytest.param("https://a.example\x00", id="NUL"),
    pytest.param("https://user@a.example", id="userinfo"),
    pytest.param("https://trusted.example@evil.example", id="a trusted name as userinfo"),
    pytest.param("https://a.example/", id="final slash"),
    pytest.param("https://a.example/path", id="path"),
    pytest.param("https://a.example?q", id="query"),
    pytest.param("https://a.example#f", id="fragment"),
    pytest.param("https://example.com\\@evil.com", id="backslash"),
    pytest.param("https:\\\\a.example", id="backslashes for slashes"),
    pytest.param("https:/a.example", id="one slash"),
    pytest.param("//a.example", id="no scheme"),
    pytest.param("a.example", id="bare host"),
    pytest.param("HTTPS://a.example", id="upper-case scheme"),
    pytest.param("https://A.example", id="upper-case host"),
    pytest.param("https://münchen.example", id="letters outside ASCII"),
    pytest.param("https://a.example:٣", id="digits of another script"),
    pytest.param("https://\uff41.example", id="full-width letters"),
    pytest.param("https://", id="no host"),
    pytest.param("https://:443", id="no host but a port"),
    pytest.param("https://a.example:", id="colon without a port"),
    pytest.param("https://a.example:0", id="port 0"),
    pytest.param("https://a.example:0443", id="leading zero in the port"),
    pytest.param("https://a.example:65536", id="port above 65535"),
    pytest.param("https://a.example:99999", id="five digits above 65535"),
    pytest.param("https://a.example:1234567", id="port with seven digits"),
    pytest.param("https://a.example:+80", id="sign in the port"),
    pytest.param("https://a..example", id="empty label"),
    pytest.param("https://.example", id="leading dot"),
    pytest.param("https://*.example", id="asterisk"),
    pytest.param("https://127.1", id="short IPv4"),
    pytest.param("https://127.0.0.1.", id="IPv4 with a final dot"),
    pytest.param("https://0x7f.0.0.1", id="hexadecimal IPv4 part"),
    pytest.param("https://1.2.3.0x4", id="hexadecimal last part"),
    pytest.param("https://1.2.3.0x", id="empty hexadecimal last part"),
    pytest.param("https://2130706433", id="IPv4 as one number"),
    pytest.param("https://192.168.01.1", id="octal IPv4 part"),
    pytest.param("https://192.168.1.256", id="IPv4 part above 255"),
    pytest.param("https://a.1", id="a name that ends in a number"),
    pytest.param("https://[::1", id="bracket that does not close"),
    pytest.param("https://[:::1]", id="three colons"),
    pytest.param("https://[2001:DB8::1]", id="upper-case IPv6"),
    pytest.param("https://[2001:0db8::1]", id="IPv6 with leading zeros"),
    pytest.param("https://[2001:db8:0:0:0:0:0:1]", id="IPv6 that is not compressed"),
    pytest.param("https://[1:0::2:0:0:0:3]", id="IPv6 that is compressed in the wrong place"),
    pytest.param("https://[::127.0.0.1]", id="IPv6 with a dotted end"),
    pytest.param("https://[fe80::1%25eth0]", id="IPv6 with a zone"),
    pytest.param("https://xn--", id="empty A-label"),
    pytest.param("https://xn--a", id="A-label of ASCII"),
    pytest.param("https://xn--pokxncvks", id="A-label that does not decode"),
    pytest.param("https://xn--99999999999", id="A-label beyond the last character"),
    pytest.param("file://localhost", id="a file has an opaque origin"),
    pytest.param("data://a.example", id="data has an opaque origin"),
    pytest.param("https://" + "a" * 64 + ".example", id="label of 64 characters"),
    pytest.param("https://" + "a." * 130 + "a", id="host that no name server can hold"),
    pytest.param("https://" + "a" * 100_000, id="a hundred thousand characters"),
]


@pytest.mark.parametrize(("value", "serialised"), RECEIVED)
def test_a_well_formed_origin_is_read(value: str, serialised: str) -> None:
    assert str(parse_origin(value)) == serialised


@pytest.mark.parametrize("value", MALFORMED)
def test_what_no_browser_writes_is_malformed(value: str) -> None:
    assert parse_origin(value) is None


def test_an_origin_is_scheme_host_and_effective_port() -> None:
    assert parse_origin("https://a.example") == Origin("https", "a.example", 443)
    assert parse_origin("https://a.example") == parse_origin("https://a.example:443")
    assert parse_origin("https://a.example") != parse_origin("https://a.example.")
    assert parse_origin("capacitor://localhost") == Origin("capacitor", "localhost", None)


@pytest.mark.parametrize(
    ("value", "serialised"),
    [
        pytest.param("https://a.example", "https://a.example", id="without a path"),
        pytest.param("https://a.example/", "https://a.example", id="strict-origin"),
        pytest.param("https://a.example:8443/x/y?z=1&u=http://b.example/", "https://a.example:8443", id="whole URL"),
        pytest.param("https://a.example?q=\\", "https://a.example", id="query without a path"),
        pytest.param("https://a.example/@evil.example", "https://a.example", id="at sign in the path"),
        pytest.param("capacitor://localhost/index.html", "capacitor://localhost", id="an app"),
    ],
)
def test_the_origin_of_a_referer_is_read(value: str, serialised: str) -> None:
    assert str(referer_origin(value)) == serialised


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("about:blank", id="about:blank"),
        pytest.param("/path", id="relative"),
        pytest.param("a.example/", id="no scheme"),
        pytest.param("https://user:pw@a.example/", id="userinfo"),
        pytest.param("https://a.example/#f", id="fragment"),
        pytest.param("https://a.example/ b", id="space"),
        pytest.param("https://a.example/\n", id="newline"),
        pytest.param("https://a.example/ü", id="letter outside ASCII"),
        pytest.param("https://a.example\\@evil.example/", id="backslash"),
        pytest.param("HTTPS://a.example/", id="upper-case scheme"),
        pytest.param("https://a.example:99999/", id="port above 65535"),
        pytest.param("https:///a.example/", id="no host"),
    ],
)
def test_a_referer_that_no_browser_writes_has_no_origin(value: str) -> None:
    assert referer_origin(value) is None


CONFIGURED = [
    pytest.param("https://a.example", "https://a.example", id="plain"),
    pytest.param("HTTPS://Portal.Example", "https://portal.example", id="upper case is mended"),
    pytest.param("https://a.example:443", "https://a.example", id="default port is dropped"),
    pytest.param("https://a.example:8443", "https://a.example:8443", id="other port is kept"),
    pytest.param("https://intranet", "https://intranet", id="one label"),
    pytest.param("https://münchen.example", "https://xn--mnchen-3ya.example", id="international name"),
    pytest.param("https://MÜNCHEN.example", "https://xn--mnchen-3ya.example", id="international name in upper case"),
    pytest.param("https://faß.example", "https://xn--fa-hia.example", id="sharp s as browsers read it today"),
    pytest.param("https://a。example", "https://a.example", id="ideographic full stop"),
    pytest.param("https://１９２.0.2.1", "https://192.0.2.1", id="full-width digits become an address"),
    pytest.param("https://[2001:DB8:0:0:0:0:0:1]", "https://[2001:db8::1]", id="IPv6 is compressed"),
    pytest.param("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", id="IPv6 with a port"),
    pytest.param("https://*.a.example", "https://*.a.example", id="wildcard"),
    pytest.param("https://*.A.example:8443", "https://*.a.example:8443", id="wildcard with a port"),
    pytest.param("https://*.münchen.example", "https://*.xn--mnchen-3ya.example", id="international wildcard"),
    pytest.param("https://*.co.uk", "https://*.co.uk", id="a public suffix of two labels is a finding of check"),
    pytest.param("capacitor://localhost", "capacitor://localhost", id="an app"),
    pytest.param("ionic://localhost", "ionic://localhost", id="another app"),
    pytest.param("app://localhost:8080", "app://localhost:8080", id="an app with a port"),
]


@pytest.mark.parametrize(("text", "serialised"), CONFIGURED)
def test_a_configured_origin_is_mended_and_read(text: str, serialised: str) -> None:
    assert str(parse_pattern(text)) == serialised


REFUSED = [
    pytest.param("", "empty", id="empty"),
    pytest.param("*", "INSECURE_ANY_ORIGIN", id="bare asterisk"),
    pytest.param("null", "sandboxed", id="null"),
    pytest.param("a.example", "write https://", id="no scheme"),
    pytest.param("//a.example", "starts with its scheme", id="two slashes without a scheme"),
    pytest.param("://a.example", "not a scheme", id="empty scheme"),
    pytest.param("ht tp://a.example", "space", id="space in the scheme"),
    pytest.param("h\u212atps://a.example", "not a scheme", id="Kelvin sign in the scheme"),
    pytest.param("https:// a.example", "space", id="space"),
    pytest.param("https://a.example\n", "control", id="newline"),
    pytest.param("https://a.example\u200b", "control", id="zero-width space"),
    pytest.param("https://a.example,https://b.example", "one entry for each", id="two in one"),
    pytest.param("https://a.example;b", "one entry for each", id="semicolon"),
    pytest.param("https://a.example/", "no path", id="final slash"),
    pytest.param("https://a.example/app", "no path", id="path"),
    pytest.param("https://a.example?x", "no path", id="query"),
    pytest.param("https://a.example#x", "no path", id="fragment"),
    pytest.param("https://a.example\\x", "no path", id="backslash"),
    pytest.param("https://user:pw@a.example", "user name", id="userinfo"),
    pytest.param("https://", "host is missing", id="no host"),
    pytest.param("https://*.", "host is missing", id="wildcard without a name"),
    pytest.param("https://:443", "host is missing", id="no host but a port"),
    pytest.param("https://a.example:", "port", id="colon without a port"),
    pytest.param("https://a.example:0", "port", id="port 0"),
    pytest.param("https://a.example:08443", "port", id="leading zero"),
    pytest.param("https://a.example:65536", "port", id="port above 65535"),
    pytest.param("https://a.example:*", "port", id="any port"),
    pytest.param("https://a.example:٣", "port", id="digits of another script"),
    pytest.param("https://a b.example", "space", id="space in the host"),
    pytest.param("https://a..example", "not a host name", id="empty label"),
    pytest.param("https://a!.example", "not a host name", id="exclamation mark"),
    pytest.param("https://" + "a" * 64 + ".example", "not a host name", id="long label"),
    pytest.param("https://" + "a." * 130 + "a", "not a host name", id="long host"),
    pytest.param("https://ü" + "a" * 70 + ".example", "international name", id="long international label"),
    pytest.param("https://ab\u2100.example", "international name", id="letter that turns into a slash"),
    pytest.param("https://\u0644a.example", "international name", id="mixed directions"),
    pytest.param("https://xn--a.example", "xn--", id="A-label that decodes to nothing"),
    pytest.param("https://127.1", "IPv4", id="short IPv4"),
    pytest.param("https://192.0.2.300", "IPv4", id="IPv4 part above 255"),
    pytest.param("https://0x7f000001", "IPv4", id="hexadecimal IPv4"),
    pytest.param("https://[::g]", "IPv6", id="no IPv6 address"),
    pytest.param("https://[::1", "IPv6", id="bracket that does not close"),
    pytest.param("https://[fe80::1%eth0]", "IPv6", id="zone"),
    pytest.param("https://[2001:db8::1]8443", "port", id="port without its colon"),
    pytest.param("https://a.*.example", "front", id="asterisk inside"),
    pytest.param("https://*a.example", "front", id="asterisk in a label"),
    pytest.param("https://*.*.example", "front", id="two asterisks"),
    pytest.param("https://*", "front", id="asterisk for the whole host"),
    pytest.param("https://*.com", "every site under .com", id="a whole top-level domain"),
    pytest.param("https://*.com.", "every site under .com", id="a whole top-level domain with a final dot"),
    pytest.param("https://*.192.0.2.1", "no subdomains", id="wildcard in front of IPv4"),
    pytest.param("https://*.[2001:db8::1]", "port", id="wildcard in front of IPv6"),
    pytest.param("capacitor://*.localhost", "exactly", id="wildcard of an app"),
    pytest.param("htps://a.example", "typing mistake", id="mistyped scheme"),
    pytest.param("httpss://a.example", "typing mistake", id="another mistyped scheme"),
    pytest.param("file://a.example", "no page", id="file"),
    pytest.param("wss://a.example", "no page", id="wss"),
    pytest.param("9p://a.example", "not a scheme", id="scheme with a digit in front"),
    pytest.param("http://a.example", "ENVIRONMENT=development", id="http in production"),
    pytest.param("http://*.a.example", "ENVIRONMENT=development", id="http wildcard in production"),
    pytest.param("https://localhost", "ENVIRONMENT=development", id="localhost in production"),
    pytest.param("https://a.localhost", "ENVIRONMENT=development", id="a name under localhost"),
    pytest.param("https://localhost.", "ENVIRONMENT=development", id="localhost with a final dot"),
    pytest.param("https://127.0.0.2", "ENVIRONMENT=development", id="loopback IPv4"),
    pytest.param("https://0.0.0.0", "ENVIRONMENT=development", id="unspecified IPv4"),
    pytest.param("https://[::1]", "ENVIRONMENT=development", id="loopback IPv6"),
    pytest.param("https://[::ffff:127.0.0.1]", "ENVIRONMENT=development", id="mapped loopback"),
    pytest.param("https://ｌｏｃａｌｈｏｓｔ", "ENVIRONMENT=development", id="full-width localhost"),
]


@pytest.mark.parametrize(("text", "mend"), REFUSED)
def test_a_configured_origin_that_means_something_else_is_refused_with_the_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=re.escape(mend)):
        parse_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("http://a.example", id="http"),
        pytest.param("http://localhost:3000", id="localhost over http"),
        pytest.param("https://127.0.0.1", id="loopback"),
        pytest.param("http://*.localhost:3000", id="tenants as names under localhost"),
    ],
)
def test_development_lets_http_and_localhost_in(text: str) -> None:
    assert str(parse_pattern(text, development=True)) == text


def test_development_lets_no_top_level_domain_in() -> None:
    with pytest.raises(ValueError, match="every site under"):
        parse_pattern("http://*.com", development=True)


def test_a_message_shows_neither_a_password_nor_a_whole_novel() -> None:
    for text in ("https://user:hunter2@a.example", "user:hunter2@a.example", "https://u:hunt://er2@a.example"):
        with pytest.raises(ValueError, match=r"@a\.example") as refusal:
            parse_pattern(text)
        assert "hunt" not in str(refusal.value)
    with pytest.raises(ValueError, match="…") as refusal:
        parse_pattern("https://" + "a" * 10_000)
    assert len(str(refusal.value)) < 300
    with pytest.raises(ValueError, match="control") as refusal:
        parse_pattern("https://a\x1b[31m.example")
    assert "\x1b" not in str(refusal.value)


def test_a_wildcard_is_read_as_one() -> None:
    assert parse_pattern("https://*.a.example") == WildcardOrigin("https", "a.example", 443)
