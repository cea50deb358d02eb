"""10,000 random addresses, rewritten and reversed as pysrs and Perl's Mail::SRS do it.

Ours is compared on the level of srs.py, whose local-parts have no quoting; neither of the others
asks there which domains are theirs. Where ours rightly differs, DIFFERENCES has the class of
addresses, the reason, and a test of its own for each.
"""

from __future__ import annotations

import base64
import random
import shutil
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from srsd.exclusion import ExclusionMap
from srsd.lookup import Lookup, LookupParameters
from srsd.srs import Keyring, Refusal, Srs, SrsParameters
from srsd.syntax.address import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TODAY = 20780
NOW = TODAY * 86400 + 4711
SECRETS = [b"the tests' first secret", b"the tests' second secret"]
DOMAIN = b"fwd.example.net"
NUMBER = 10_000
SEED = 20261123
PARAMETERS = [("=", 4), ("+", 4), ("-", 9), ("=", 27)]  # separator, characters of the hash

Ask = "Callable[[str, Sequence[bytes]], list[bytes | None]]"


# The peers: each takes addresses, gives for each the result or None ------------------------------


def pysrs(separator: str, length: int, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Make pysrs run on the Python of today, at the tests' time."""
    guarded = pytest.importorskip(
        "SRS.Guarded", reason="pysrs is not installed: nothing was compared with it"
    )
    base = pytest.importorskip("SRS.Base")
    # Gone since Python 3.9; pysrs wants no more of the module.
    monkeypatch.setattr(base, "base64", SimpleNamespace(encodestring=base64.encodebytes))
    monkeypatch.setattr(base, "time", SimpleNamespace(time=lambda: NOW))
    secrets = tuple(secret.decode() for secret in SECRETS)
    peer = guarded.Guarded(secrets, separator=separator, hashlength=length, maxage=21)
    peer.warn = lambda *_: None  # it prints

    def one(direction: str, address: bytes) -> bytes | None:
        text = address.decode()
        try:
            made = peer.forward(text, DOMAIN.decode()) if direction == "forward" else peer.reverse(text)
        except (AssertionError, ValueError):
            return None
        return made.encode()

    return lambda direction, addresses: [one(direction, address) for address in addresses]


PERL = r"""
use strict;
use warnings;
our $now;
BEGIN { *CORE::GLOBAL::time = sub { $main::now } }
use Mail::SRS;
my ($separator, $length, @secrets) = @ARGV;
$now = shift @secrets;
my $alias = shift @secrets;
my $srs = new Mail::SRS(Secret => \@secrets, MaxAge => 21, HashLength => $length, Separator => $separator);
$SIG{__WARN__} = sub {};
while (my $line = <STDIN>) {
    chomp $line;
    my ($direction, $hex) = split / /, $line;
    my $address = pack 'H*', $hex;
    my $made = eval { $direction eq 'forward' ? $srs->forward($address, $alias) : $srs->reverse($address) };
    print defined $made ? unpack('H*', $made) : '-', "\n";
}
"""


def mail_srs(separator: str, length: int) -> Ask:
    """Ask one Perl process: lines of `forward|reverse HEX`, answered with `HEX` or `-`."""
    perl = shutil.which("perl")
    if perl is None:
        pytest.skip("no perl: nothing was compared with Mail::SRS")
    found = subprocess.run([perl, "-MMail::SRS", "-e", "1"], capture_output=True, check=False, timeout=60)
    if found.returncode != 0:
        pytest.skip("Mail::SRS is not installed (Debian: libmail-srs-perl): nothing was compared with it")
    arguments = [separator, str(length), str(NOW), DOMAIN, *SECRETS]

    def ask(direction: str, addresses: Sequence[bytes]) -> list[bytes | None]:
        lines = "".join(f"{direction} {address.hex()}\n" for address in addresses)
        done = subprocess.run(
            [perl, "-e", PERL, "--", *arguments],
            input=lines.encode(),
            capture_output=True,
            check=True,
            timeout=120,
        )
        assert not done.stderr
        answers = done.stdout.decode().split("\n")[:-1]
        assert len(answers) == len(addresses)
        return [None if answer == "-" else bytes.fromhex(answer) for answer in answers]

    return ask


@pytest.fixture(params=["pysrs", "Mail::SRS"])
def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ask]:
    """Give who is asked, once separator and length are known."""
    if request.param == "pysrs":
        return lambda separator="=", length=4: pysrs(separator, length, monkeypatch)
    return lambda separator="=", length=4: mail_srs(separator, length)


# Ours, spelt as theirs ---------------------------------------------------------------------------


def ours(separator: str = "=", length: int = 4) -> Srs:
    parameters = SrsParameters(separator=separator, hash_length=length, hash_minimum=length)
    return Srs(parameters, Keyring(SECRETS))


def forward(srs: Srs, address: bytes, age: int = 0) -> bytes | None:
    local_part, _, domain = address.rpartition(b"@")
    made = srs.forward(Address(local_part, domain), TODAY - age)
    return None if isinstance(made, Refusal) else made + b"@" + DOMAIN


def reverse(srs: Srs, address: bytes) -> bytes | None:
    back = srs.reverse(address.rpartition(b"@")[0], TODAY)
    return None if isinstance(back, Refusal) else back.local_part + b"@" + back.domain


def standard(made: bytes) -> bytes:
    """Spell our hash in the alphabet of the others: theirs is base64, ours RFC 4648 section 5."""
    tag, (given, rest) = made[:5], made[5:].split(b"=", 1)
    return tag + given.replace(b"-", b"+").replace(b"_", b"/") + b"=" + rest


# Random addresses ----------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LOCAL = LETTERS + "!#$%&'*+-/=?^_`{|}~." + "éÜß\u4e2d" + ' "\\(),:;<>[]@'
HOST = LETTERS + "-_" + "éÜ"


def random_text(rng: random.Random, letters: str, low: int, high: int) -> str:
    return "".join(rng.choices(letters, k=rng.randint(low, high)))


def random_domain(rng: random.Random) -> str:
    if rng.random() < 0.03:
        return rng.choice(["[192.0.2.1]", "[IPv6:2001:db8::1]"])
    name = ".".join(random_text(rng, HOST, 1, 12) for _ in range(rng.randint(1, 4)))
    return name + "." if rng.random() < 0.02 else name


def random_address(rng: random.Random) -> bytes:
    """Make a sender: plain or with any octet that a mailbox can have; or another forwarder's."""
    kind = rng.random()
    user = random_text(rng, LETTERS if kind < 0.3 else LOCAL, 1, 30).replace("\n", "")
    if kind > 0.9:
        separator, tag = rng.choice("=+-"), rng.choice(["SRS0", "srs0", "Srs0"])
        user = f"{tag}{separator}{random_text(rng, LETTERS, 4, 4)}=AB={random_domain(rng)}={user}"
    elif kind > 0.8:
        separator, inner, tag = rng.choice("=+-"), rng.choice("=+-"), rng.choice(["SRS1", "srs1"])
        host = random_domain(rng)
        user = f"{tag}{separator}{random_text(rng, LETTERS, 4, 4)}={host}={inner}HHHH=TT=a.example={user}"
    return f"{user}@{random_domain(rng)}".encode()


def keeps_quotes(address: bytes) -> bool:
    """Tell whether pysrs would take quotes off: as quoting it is compared below, not here."""
    local_part = address.rpartition(b"@")[0]
    return local_part.startswith(b'"') and local_part.endswith(b'"')


def make_addresses() -> list[bytes]:
    rng = random.Random(SEED)
    found: dict[bytes, None] = {}
    while len(found) < NUMBER:
        address = random_address(rng)
        if not keeps_quotes(address):
            found[address] = None
    return list(found)


# No domain is called `_`, which stands for one where an address is stored: it is refused.
ADDRESSES = [address for address in make_addresses() if not address.endswith(b"@_")]


def disagreements(
    questions: Sequence[bytes], mine: Sequence[bytes | None], theirs: Sequence[bytes | None]
) -> list[object]:
    found = [each for each in zip(questions, mine, theirs, strict=True) if each[1] != each[2]]
    return found[:5] and [len(found), *found[:5]]


def test_the_addresses_are_of_all_kinds():
    starts = [address[:4].upper() for address in ADDRESSES]
    assert starts.count(b"SRS0") > 500
    assert starts.count(b"SRS1") > 1000
    assert sum(not address.isascii() for address in ADDRESSES) > 1000
    assert sum(b"@" in address[: address.rindex(b"@")] for address in ADDRESSES) > 1000


@pytest.mark.parametrize(("separator", "length"), PARAMETERS)
def test_forward_and_reverse_agree(request, peer, separator, length):
    ask, srs = peer(separator, length), ours(separator, length)
    made = [forward(srs, address) for address in ADDRESSES]
    assert None not in made
    spelt = [standard(each) for each in made]
    theirs = ask("forward", ADDRESSES)
    if request.node.callspec.params["peer"] == "Mail::SRS":
        # It refuses what only a quoted local-part can hold; but it reverses what we make of it.
        with_at = [number for number, address in enumerate(ADDRESSES) if address.count(b"@") > 1]
        assert {theirs[number] for number in with_at} == {None}
        for number in with_at:
            theirs[number] = spelt[number]
    assert not disagreements(ADDRESSES, spelt, theirs)
    # Each reverses what the other made, and says the same.
    back = [reverse(srs, each) for each in theirs]
    assert not disagreements(theirs, back, ask("reverse", spelt))
    assert not disagreements(made, [reverse(srs, each) for each in made], back)
    plain = [number for number, each in enumerate(ADDRESSES) if each[:4].upper() not in {b"SRS0", b"SRS1"}]
    assert [back[number] for number in plain] == [ADDRESSES[number] for number in plain]


def altered(rng: random.Random, made: bytes) -> bytes:
    """Damage an address as the way, or a forger, would."""
    at = rng.choice([at for at in range(4, made.rindex(b"@")) if made[at] < 0x80])  # pysrs has no octets
    letter = rng.choice(LETTERS).encode()
    return rng.choice(
        [made[:at] + letter + made[at + 1 :], made[:at] + made[at + 1 :], made[:at] + letter + made[at:]]
    )


def outside_all_differences(address: bytes) -> bool:
    """Leave out what DIFFERENCES has."""
    fields = address.rpartition(b"@")[0][5:].split(b"=", 3)
    if address[:4].upper() == b"SRS1":
        return (
            len(fields) >= 3
            and bool(fields[1])
            and fields[2][:1] in {b"", b"+", b"-"}
            and bool(fields[2] or fields[3:])
        )
    return len(fields) == 4 and len(fields[1]) == 2 and bool(fields[2]) and bool(fields[3])


def test_damaged_and_old_addresses_are_refused_alike(peer):
    rng, srs, ask = random.Random(SEED), ours(), peer()
    old = [standard(forward(srs, address, rng.randint(-40, 60))) for address in ADDRESSES]
    damaged = [altered(rng, each) if rng.random() < 0.7 else each for each in old]
    shouted = [each.upper() if rng.random() < 0.1 and each.isascii() else each for each in damaged]
    compared = [each for each in shouted if outside_all_differences(each)]
    assert len(compared) > 0.9 * NUMBER
    mine = [reverse(srs, each) for each in compared]
    assert 0.1 < sum(each is None for each in mine) / len(mine) < 0.95
    assert not disagreements(compared, mine, ask("reverse", compared))


def test_the_second_secret_verifies_alike(peer):
    second = Srs(SrsParameters(), Keyring(SECRETS[1:]))
    made = [standard(forward(second, address)) for address in ADDRESSES[:1000]]
    mine = [reverse(ours(), each) for each in made]
    assert None not in mine
    assert not disagreements(made, mine, peer()("reverse", made))


# Where ours differs --------------------------------------------------------------------------------


def srs0(
    user: bytes = b"alice", host: bytes = b"example.com", stamp: bytes = b"JM", length: int = 4
) -> bytes:
    digest = Keyring(SECRETS).sign(stamp + host + user)[:length].replace(b"-", b"+").replace(b"_", b"/")
    return b"SRS0=" + b"=".join((digest, stamp, host, user)) + b"@" + DOMAIN


def srs1(host: bytes, rest: bytes) -> bytes:
    digest = Keyring(SECRETS).sign(host + rest)[:4].replace(b"-", b"+").replace(b"_", b"/")
    return b"SRS1=" + b"=".join((digest, host, rest)) + b"@" + DOMAIN


def url_safe_address() -> bytes:
    """Find an address whose hash has an octet that the two alphabets spell differently."""
    made = (forward(ours(), b"user%d@example.com" % number) for number in range(1000))
    return next(each for each in made if {*b"-_"} & {*each.split(b"=")[1]})


# Direction, address, whether ours gives a result, whether the others do (a mapping where they do not
# agree), and why ours is right.
DIFFERENCES = {
    "the hash in the alphabet of RFC 4648 section 5": (
        "reverse", url_safe_address(), True, False,
        "some receivers refuse + and / in a local-part, so we emit - and _, and read all four",
    ),
    "an empty local-part": (
        "forward", b"@example.com", False, True,
        "it is no address, and could not be told from a broken one when it comes back",
    ),
    "an empty local-part that comes back": (
        "reverse", srs0(user=b""), False, True, "nobody can be reached without a local-part",
    ),
    "an empty domain": (
        "forward", b"alice@", False, {"pysrs": True, "Mail::SRS": False}, "a bounce could reach nobody",
    ),
    "a local-part with an @": (
        "forward", b"a@b@example.com", True, {"pysrs": True, "Mail::SRS": False},
        "RFC 5321 allows it in quotes, and ours quotes what it makes",
    ),
    "a domain with the character that ends its field": (
        "forward", b"alice@ex=ample.com", False, True,
        "it would come back as alice=ample... at another domain: never make what cannot be reversed",
    ),
    "a stamp of more than two digits": (
        # Today for the others, who count it modulo 1024, and for whoever reads its first two digits.
        "reverse", srs0(stamp=b"JMJM"), False, True,
        "two digits are the format; the others decode any length (CVE-2020-35573 in PostSRSd)",
    ),
    "SRS1 without the separator of an SRS0": (
        "reverse", srs1(b"mid.example", b"HHHH=TT=a=b"), False, True,
        "SRS0HHHH... is no address that a forwarder made",
    ),
    "SRS1 of another forwarder without the separator of an SRS0": (
        "forward", b"SRS1=HHHH=mid.example=HHHH=TT=a=b@x.example", False, True,
        "what we made of it could not be reversed",
    ),
    "SRS1 without a host": (
        "forward", b"SRS1=HHHH===HHHH=TT=a=b@x.example", False, True, "a bounce could reach nobody",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_ours_differs(request, peer, name):
    direction, address, we_do, they_do, why = DIFFERENCES[name]
    mine = (forward if direction == "forward" else reverse)(ours(), address)
    assert (mine is not None) is we_do, why
    if isinstance(they_do, dict):
        they_do = they_do[request.node.callspec.params["peer"]]
    (theirs,) = peer()(direction, [address])
    assert (theirs is not None) is they_do, f"{theirs!r}: the difference is gone, or is another one"


# Quoted local-parts: ours unquotes, signs, and quotes the whole new local-part again.
QUOTED = [
    (b'"a b"@example.com', "as pysrs"),
    (b'"a@b"@example.com', "as pysrs"),
    (b'"alice"@example.com', "needless quotes"),
    (b'"a\\"b"@example.com', "quoted-pair"),
]


@pytest.mark.parametrize(("address", "kind"), QUOTED)
def test_quoted_local_parts(peer, request, address, kind):
    """Mail::SRS signs the quotes as text, and makes an address that SMTP cannot carry."""
    lookup = Lookup(LookupParameters(domain=DOMAIN.decode()), ours(), ExclusionMap())
    made = lookup.forward(address, TODAY).text
    assert parse_address(made) is not None
    assert lookup.reverse(made, TODAY).text == bytes(parse_address(address))
    (theirs,) = peer()("forward", [address])
    if kind == "as pysrs" and theirs is None:
        assert request.node.callspec.params["peer"] == "Mail::SRS"
        assert address.count(b"@") > 1
    elif request.node.callspec.params["peer"] == "Mail::SRS":
        assert theirs.endswith(address.rpartition(b"@")[0] + b"@" + DOMAIN)  # a quote in the middle
        assert theirs != made
    elif kind == "as pysrs":
        assert standard(made[1:]) == theirs[1:]
    elif kind == "needless quotes":  # pysrs keeps them; the address is the same
        assert b'"' + standard(made).replace(b"@", b'"@') == theirs
    else:  # pysrs signs the backslash, so that the hash depends on how a mailbox is spelt
        assert theirs[1:] != standard(made[1:])
