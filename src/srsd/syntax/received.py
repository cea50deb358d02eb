"""What a Received field says (RFC 5321 §4.4), in the forms in which MTAs write it.

The clauses are those of the RFC. Who the client was stands in comments, and there each MTA has its own form:

    Postfix, Sendmail, OpenSMTPD   from HELO (NAME [IP])        unknown NAME: "unknown", or none
    Exim                           from NAME ([IP] helo=HELO)   from [IP] (helo=HELO)   from HELO ([IP])
    Exchange                       from HELO (IP)
    qmail, Yahoo                   from NAME (HELO HELO) (IP)   from IP (EHLO HELO)
    fetchmail                      from NAME [IP]
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from srsd.syntax.date import parse_date
from srsd.syntax.header import unfold

if TYPE_CHECKING:
    from datetime import datetime


class Received(NamedTuple):
    """A Received field. What it does not say is b"" or None."""

    helo: bytes
    """What the client said in HELO, or where that is not told apart, the word after `from`."""
    client_name: bytes
    """The client's name as the MTA found it in DNS, without a trailing dot."""
    client: IPv4Address | IPv6Address | None
    """The client's address; an IPv4-mapped one as IPv4."""
    by: bytes
    """Who wrote the field."""
    protocol: bytes
    """`with`, its words as they stand."""
    id: bytes
    recipient: bytes
    """`for`, without its angle brackets."""
    date: datetime | None

    @property
    def authenticated(self) -> bool:
        """Tell whether the protocol says that the client had authenticated (RFC 3848)."""
        return self.protocol.partition(b" ")[0].upper() in _AUTHENTICATED


_AUTHENTICATED = frozenset(
    {
        *(b"ESMTPA", b"ESMTPSA", b"LMTPA", b"LMTPSA", b"ASMTP"),
        *(b"UTF8SMTPA", b"UTF8SMTPSA", b"UTF8LMTPA", b"UTF8LMTPSA"),  # RFC 6531 §4.3
    }
)
_KEYWORDS = frozenset({b"from", b"by", b"via", b"with", b"id", b"for"})

# Quotes mean nothing here: what a client could make of them is worse than a comment that is cut.
_OUTSIDE = re.compile(rb"[();]|[^ \t();]++")
_INSIDE = re.compile(rb"[()]|\\.", re.DOTALL)
_HELO_COMMENT = re.compile(rb"(?:HELO|EHLO|LHLO)[ \t]++([^ \t]++)", re.IGNORECASE)
# What Exim adds to the address: all of it is the client's word.
_EXIM_PAIR = re.compile(rb"(?:^|(?<=[ \t]))(helo|ident)=([^ \t]*+)")
_LITERAL = re.compile(rb"\[([^][]*+)\]")
_COMMENTS_MAXIMUM = 10  # behind `from`; MTAs write up to five
_ADDRESS_MAXIMUM = 64  # octets; the longest address has 45, and its scope some more


class _Clauses:
    """The words and the comments of each clause. A clause that comes twice counts as the first time."""

    def __init__(self) -> None:
        self.words: dict[bytes, list[bytes]] = {b"": []}
        self.from_comments: list[bytes] = []
        self._keyword = b""
        self._words: list[bytes] = self.words[b""]

    def add_word(self, word: bytes) -> None:
        keyword = word.lower()
        # The word behind a keyword is its value, whatever it is: a client may say HELO by.
        if keyword in _KEYWORDS and (self._words or not self._keyword):
            self._keyword = keyword
            self._words = []
            self.words.setdefault(keyword, self._words)
        else:
            self._words.append(word)

    def add_comment(self, comment: bytes) -> None:
        in_from = self._words is self.words.get(b"from")
        if in_from and len(self.from_comments) < _COMMENTS_MAXIMUM:
            self.from_comments.append(comment)

    def first(self, keyword: bytes) -> bytes:
        words = self.words.get(keyword)
        return words[0] if words else b""


def parse_received(value: bytes) -> Received:
    """Parse the value of a Received field, folded or not. Whatever it is, nothing is raised."""
    line = unfold(value)
    clauses, date = _parse_clauses(line)
    helo, client_name, client = _client(clauses.words.get(b"from", []), clauses.from_comments)
    recipient = clauses.first(b"for")
    if recipient.startswith(b"<") and recipient.endswith(b">"):
        recipient = recipient[1:-1]
    return Received(
        helo,
        client_name,
        client,
        clauses.first(b"by"),
        b" ".join(clauses.words.get(b"with", [])),
        clauses.first(b"id"),
        recipient,
        parse_date(date),
    )


def _parse_clauses(line: bytes) -> tuple[_Clauses, bytes]:
    """Part a line into clauses, and give what stands behind the last semicolon that is in no comment."""
    clauses = _Clauses()
    date = len(line)
    position = 0
    while found := _OUTSIDE.search(line, position):
        position = found.end()
        word = found[0]
        if word == b"(":
            end = _comment_end(line, position)
            clauses.add_comment(
                line[position : end - 1] if line[end - 1 : end] == b")" else line[position:end]
            )
            position = end
        elif word == b";":
            date = position
        elif word != b")" and date == len(line):
            clauses.add_word(word)
    return clauses, line[date:]


def _comment_end(line: bytes, position: int) -> int:
    """Give where the parenthesis is that closes a comment; one that is not closed ends with the line."""
    depth = 1
    for mark in _INSIDE.finditer(line, position):
        if mark[0] == b"(":
            depth += 1
        elif mark[0] == b")":
            depth -= 1
            if not depth:
                return mark.start()
    return len(line)


def _client(
    words: list[bytes], comments: list[bytes]
) -> tuple[bytes, bytes, IPv4Address | IPv6Address | None]:
    """Tell HELO, the client's name, and its address apart."""
    first = words[0] if words else b""
    helo = name = b""
    client = None
    for comment in comments:
        said, text = _without_helo(comment)
        helo = helo or said
        if client is None:
            client, name = _address_in(text)
    if client is None and len(words) > 1:
        client = _parse_literal(words[1])
        if client is not None:
            return helo, first, client
    if not helo:
        return first, name, client
    # Where HELO has a place of its own, what stands behind `from` is the MTA's word.
    own = _parse_literal(first) or _parse_address(first)
    if own is None:
        return helo, name or _without_dot(first), client
    return helo, name, client or own


def _without_helo(comment: bytes) -> tuple[bytes, bytes]:
    """Give what a comment says of HELO, and what the MTA itself says in it."""
    said = _HELO_COMMENT.fullmatch(comment)
    if said:
        return said[1], b""
    begin = len(comment)
    helo = b""
    for pair in _EXIM_PAIR.finditer(comment):
        begin = min(begin, pair.start())
        if pair[1] == b"helo":
            helo = pair[2]
            break
    return helo, comment[:begin]


def _address_in(text: bytes) -> tuple[IPv4Address | IPv6Address | None, bytes]:
    """Find the client's address and name in `NAME [IP]`, `[IP]`, `user@NAME [IP]`, `IP`, `user@IP`."""
    last = None
    for last in _LITERAL.finditer(text):  # noqa: B007 - the one behind a user's own words
        pass
    if last is None:
        return _parse_address(text.strip(b" \t").rpartition(b"@")[2]), b""
    client = _parse_literal(last[0])
    before = text[: last.start()].replace(b"(", b" ").split()
    name = before[-1].rpartition(b"@")[2] if client is not None and before else b""
    return client, _without_dot(name)


def _without_dot(name: bytes) -> bytes:
    return name.removesuffix(b".")


def _parse_literal(text: bytes) -> IPv4Address | IPv6Address | None:
    """Parse `[192.0.2.1]`, `[2001:db8::1]` or `[IPv6:2001:db8::1]`."""
    literal = _LITERAL.fullmatch(text)
    return _parse_address(literal[1]) if literal else None


def _parse_address(text: bytes) -> IPv4Address | IPv6Address | None:
    """Parse an address, without the scope of a link-local one."""
    if len(text) > _ADDRESS_MAXIMUM:
        return None
    if text[:5].lower() == b"ipv6:":
        text = text[5:]
    try:
        address = ip_address(text.partition(b"%")[0].decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
