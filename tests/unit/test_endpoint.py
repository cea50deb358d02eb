"""Endpoints: what may stand in [listen], and how it is shown again."""

from __future__ import annotations

import pytest

from srsd.syntax.endpoint import UNIX_PATH_MAXIMUM, InetEndpoint, UnixEndpoint, parse_endpoint

LONGEST = "/" + "x" * (UNIX_PATH_MAXIMUM - 1)


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("inet:127.0.0.1:10001", InetEndpoint("127.0.0.1", 10001), "inet:127.0.0.1:10001"),
        ("inet:0.0.0.0:0", InetEndpoint("0.0.0.0", 0), "inet:0.0.0.0:0"),
        ("inet:localhost:65535", InetEndpoint("localhost", 65535), "inet:localhost:65535"),
        ("inet:mx-1.example.org:25", InetEndpoint("mx-1.example.org", 25), "inet:mx-1.example.org:25"),
        ("inet:127.0.0.1:00025", InetEndpoint("127.0.0.1", 25), "inet:127.0.0.1:25"),
        ("inet:[::1]:10001", InetEndpoint("::1", 10001), "inet:[::1]:10001"),
        ("inet:[2001:DB8::a]:1", InetEndpoint("2001:DB8::a", 1), "inet:[2001:DB8::a]:1"),
        ("inet:[::ffff:127.0.0.1]:1", InetEndpoint("::ffff:127.0.0.1", 1), "inet:[::ffff:127.0.0.1]:1"),
        ("unix:/run/srsd/a.sock", UnixEndpoint("/run/srsd/a.sock"), "unix:/run/srsd/a.sock?mode=0660"),
        ("unix:/run/a?", UnixEndpoint("/run/a"), "unix:/run/a?mode=0660"),
        ("unix:/run/a?mode=0600", UnixEndpoint("/run/a", 0o600), "unix:/run/a?mode=0600"),
        ("unix:/run/a?mode=666", UnixEndpoint("/run/a", 0o666), "unix:/run/a?mode=0666"),
        (
            "unix:/run/a?group=postfix",
            UnixEndpoint("/run/a", 0o660, "postfix"),
            "unix:/run/a?mode=0660&group=postfix",
        ),
        (
            "unix:/run/a?mode=0600&group=postfix",
            UnixEndpoint("/run/a", 0o600, "postfix"),
            "unix:/run/a?mode=0600&group=postfix",
        ),
        (
            "unix:/run/a?group=postfix&mode=0600",
            UnixEndpoint("/run/a", 0o600, "postfix"),
            "unix:/run/a?mode=0600&group=postfix",
        ),
        ("unix:/run/a b:c", UnixEndpoint("/run/a b:c"), "unix:/run/a b:c?mode=0660"),
        ("unix:/run/ü", UnixEndpoint("/run/ü"), "unix:/run/ü?mode=0660"),
        (f"unix:{LONGEST}", UnixEndpoint(LONGEST), f"unix:{LONGEST}?mode=0660"),
    ],
)
def test_accepted_forms(text, endpoint, shown):
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == shown
    assert parse_endpoint(shown) == endpoint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not an endpoint"),
        ("inet", "is not an endpoint"),
        ("inet:", "is not an endpoint"),
        ("inet:127.0.0.1", "is not an endpoint"),
        ("inet:127.0.0.1:", "is not an endpoint"),
        ("inet::10001", "is not an endpoint"),
        ("inet:127.0.0.1:port", "is not an endpoint"),
        ("inet:127.0.0.1:-1", "is not an endpoint"),
        ("inet:127.0.0.1:100000", "is not an endpoint"),
        ("inet:127.0.0.1:65536", "has a port above 65535"),
        ("inet:127.0.0.1:10001 ", "is not an endpoint"),
        (" inet:127.0.0.1:10001", "is not an endpoint"),
        ("inet:127.0.0.1:10001\n", "is not an endpoint"),
        ("inet:127.0.0.1:\u0661", "is not an endpoint"),  # a digit, but none of ours
        ("inet:::1:10001", "is not an endpoint"),
        ("inet:[::1]", "is not an endpoint"),
        ("inet:[]:1", "is not an endpoint"),
        ("inet:[::1:1", "is not an endpoint"),
        ("inet:[host]:1", "is not an endpoint"),
        ("inet:ho st:1", "is not an endpoint"),
        ("INET:127.0.0.1:1", "is not an endpoint"),
        ("tcp:127.0.0.1:1", "is not an endpoint"),
        ("127.0.0.1:1", "is not an endpoint"),
        ("10001", "is not an endpoint"),
        ("inet:127.0.0.1:1?mode=0600", "is not an endpoint"),
        ("unix:", "is not an endpoint"),
        ("unix:run/a", "is not an endpoint"),
        ("/run/a", "is not an endpoint"),
        (f"unix:{LONGEST}x", "has a path of more than 107 octets"),
        (f"unix:/{'ü' * 54}", "has a path of more than 107 octets"),
        ("unix:/run/a?mode", "has an option that is not understood"),
        ("unix:/run/a?mode=", "has an option that is not understood"),
        ("unix:/run/a?mode=rw", "has an option that is not understood"),
        ("unix:/run/a?mode=0999", "has an option that is not understood"),
        ("unix:/run/a?mode=1777", "has an option that is not understood"),
        ("unix:/run/a?mode=00660", "has an option that is not understood"),
        ("unix:/run/a?mode=66", "has an option that is not understood"),
        ("unix:/run/a?owner=root", "has an option that is not understood"),
        ("unix:/run/a?mode=0600&x", "has an option that is not understood"),
        ("unix:/run/a?MODE=0600", "has an option that is not understood"),
    ],
)
def test_refused_forms(text, problem):
    with pytest.raises(ValueError, match="would be right: ") as caught:
        parse_endpoint(text)
    assert str(caught.value).startswith(f'"{text}" {problem}')


def test_a_path_that_would_be_cut_short_is_refused():
    with pytest.raises(ValueError, match="would be right: "):
        parse_endpoint("unix:/run/a\0b")
