"""DNS messages (RFC 1035 §4): the questions that srsd asks, and what it takes from the answers.

dnspython's parser reads the wire; its messages are not used. They cost eight times as much, load a module
of Python's library at the first record of each type, which a daemon without privileges may be unable
to read, and one odd record in a section that nobody asked for makes them fail.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, NamedTuple

import dns.flags
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.wire
from dns.exception import FormError

from srsd.resolving import MailExchange, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

# Plain integers: the members of enumerations are slow as keys.
A = int(dns.rdatatype.A)
AAAA = int(dns.rdatatype.AAAA)
MX = int(dns.rdatatype.MX)
PTR = int(dns.rdatatype.PTR)
TXT = int(dns.rdatatype.TXT)
_CNAME = int(dns.rdatatype.CNAME)
_NS = int(dns.rdatatype.NS)
_OPT = int(dns.rdatatype.OPT)
_SOA = int(dns.rdatatype.SOA)
_IN = int(dns.rdataclass.IN)

NOERROR = int(dns.rcode.NOERROR)
NXDOMAIN = int(dns.rcode.NXDOMAIN)
FORMERR = int(dns.rcode.FORMERR)
SERVFAIL = int(dns.rcode.SERVFAIL)
NOTIMP = int(dns.rcode.NOTIMP)
REFUSED = int(dns.rcode.REFUSED)
BADVERS = int(dns.rcode.BADVERS)

# What a server may say without the question that it did not understand, or did not look at.
_WITHOUT_QUESTION = (FORMERR, SERVFAIL, NOTIMP, REFUSED)

UDP_PAYLOAD = 1232  # octets: no fragments on any path (DNS flag day 2020, and RFC 9715 §3)
HEADER_SIZE = 12
ALIASES_MAXIMUM = 12  # CNAMEs in a row; unbound and BIND stop there, or before

_NAME_MAXIMUM = 253  # octets of a name as text, without the trailing dot (RFC 1035 §2.3.4)
_WIRE_NAME_MAXIMUM = 255
_LABEL_MAXIMUM = 63
_TTL_END = 1 << 31  # a TTL with the highest bit set counts as 0 (RFC 2181 §8)
_STEPS_EXTRA = 1000

# AD in a query asks for AD in the answer (RFC 6840 §5.7).
_QUERY_FLAGS = int(dns.flags.RD | dns.flags.AD)
_TC = int(dns.flags.TC)
_AD = int(dns.flags.AD)
_RECURSIVE = int(dns.flags.AA | dns.flags.RA)  # or authoritative: no lame server has either
_OPT_RECORD = struct.pack("!BHHIH", 0, _OPT, UDP_PAYLOAD, 0, 0)  # RFC 6891 §6.1.2
_HEADER = struct.Struct("!6H")
_RECORD = "!HHIH"  # type, class, TTL, length of the data

# The octets of a label that mean nothing in a zone file or a header field.
_PLAIN = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'.\\"();@$')


def wire_name(name: bytes) -> bytes | None:
    """Turn a name of text, in lower case and without its trailing dot, into labels; None for what is no name.

    A backslash is an octet like any other: names come from mail, not from zone files.
    """
    if len(name) > _NAME_MAXIMUM:
        return None
    wire = b""
    for label in name.split(b"."):
        if not 0 < len(label) <= _LABEL_MAXIMUM:
            return None
        wire += bytes((len(label),)) + label
    return wire + b"\0"


def text_name(wire: bytes) -> bytes:
    r"""Turn labels into text without a trailing dot; the root is b"".

    Odd octets are written as \DDD (RFC 1035 §5.1), a dot inside a label too: whoever compares the ends
    of names must not take it for a border between labels.
    """
    labels = []
    at = 0
    while length := wire[at]:
        label = wire[at + 1 : at + 1 + length]
        if label.translate(None, _PLAIN):
            label = b"".join(bytes((octet,)) if octet in _PLAIN else b"\\%03d" % octet for octet in label)
        labels.append(label)
        at += 1 + length
    return b".".join(labels)


class Question:
    """What is asked: the name as labels in lower case, and the type."""

    __slots__ = ("name", "octets", "record_type")

    def __init__(self, name: bytes, record_type: int) -> None:
        self.name = name
        self.record_type = record_type
        self.octets = name + struct.pack("!HH", record_type, _IN)

    def query(self, identifier: int, *, edns: bool) -> bytes:
        """Make the message that asks it, with EDNS (RFC 6891) or without."""
        if edns:
            return _HEADER.pack(identifier, _QUERY_FLAGS, 1, 0, 0, 1) + self.octets + _OPT_RECORD
        return _HEADER.pack(identifier, _QUERY_FLAGS, 1, 0, 0, 0) + self.octets

    def is_answered_by(self, data: bytes) -> bool:
        """Tell whether a message, whose id fits, is a response to this question (RFC 5452 §9.1)."""
        if len(data) < HEADER_SIZE or data[2] & 0xF8 != 0x80:  # a response, of opcode QUERY
            return False
        questions = data[4] << 8 | data[5]
        if questions == 1:
            # The length octets of labels, the types and the class are no letters, so lower() leaves them.
            return data[HEADER_SIZE : HEADER_SIZE + len(self.octets)].lower() == self.octets
        return questions == 0 and data[3] & 0x0F in _WITHOUT_QUESTION


class Message(NamedTuple):
    """What a response says."""

    rcode: int
    truncated: bool = False
    lame: bool = False  # a referral: this server does not recurse
    authenticated: bool = False
    outcome: Outcome = Outcome.UNUSABLE  # FOUND, NO_DATA or NX_DOMAIN; it stands for rcodes that are no error
    records: tuple[Any, ...] = ()
    ttl: int | None = None  # seconds; None where nothing says how long the name stays without records
    alias: bytes | None = None  # ask for this name (as labels), the server did not
    aliases: int = 0  # CNAMEs followed to come there


def read_message(data: bytes, question: Question) -> Message:
    """Read a response to a question, for which is_answered_by holds.

    Only the records that belong to the question are looked at. Raises dns.exception.FormError for
    what is malformed; the time is linear in the size of the message.
    """
    return _Reading(data, question).message()


class _Record(NamedTuple):
    """A record of the answer section whose data is not read yet."""

    record_type: int
    ttl: int
    begin: int
    end: int


class _Reading:
    """One response that is being read."""

    def __init__(self, data: bytes, question: Question) -> None:
        self._parser = dns.wire.Parser(data)
        self._question = question
        # Names may point to each other: without a limit, a message of 64 KB is worth seconds.
        self._steps = len(data) + _STEPS_EXTRA

    def message(self) -> Message:
        parser = self._parser
        _, flags, questions, answers, authorities, additional = parser.get_struct("!6H")
        if flags & _TC:
            return Message(flags & 0x0F, truncated=True)
        if questions:
            parser.seek(HEADER_SIZE + len(self._question.octets))
        records = self._read_answers(answers)
        negative_ttl, referral = self._read_authorities(authorities)
        rcode = flags & 0x0F | self._read_extended_rcode(additional)
        if rcode not in (NOERROR, NXDOMAIN):
            return Message(rcode)
        lame = referral and not answers and not flags & _RECURSIVE
        found = self._follow(records, rcode, negative_ttl)
        return found._replace(lame=lame, authenticated=bool(flags & _AD))

    def _read_answers(self, count: int) -> dict[bytes, list[_Record]]:
        """Give the records that can belong to the question, by their owner."""
        parser = self._parser
        wanted = (self._question.record_type, _CNAME)
        records: dict[bytes, list[_Record]] = {}
        for _ in range(count):
            owner = self._name()
            record_type, record_class, ttl, length = parser.get_struct(_RECORD)
            begin = parser.current
            parser.seek(begin + length)
            if record_class == _IN and record_type in wanted:
                record = _Record(record_type, ttl if ttl < _TTL_END else 0, begin, begin + length)
                records.setdefault(owner, []).append(record)
        return records

    def _read_authorities(self, count: int) -> tuple[dict[bytes, int], bool]:
        """Give the negative TTL (RFC 2308 §5) by zone, and whether this looks like a referral."""
        parser = self._parser
        negative_ttl: dict[bytes, int] = {}
        referral = False
        for _ in range(count):
            owner = self._name()
            record_type, record_class, ttl, length = parser.get_struct(_RECORD)
            end = parser.current + length
            if record_type == _SOA and record_class == _IN:
                self._name()
                self._name()
                *_, minimum = parser.get_struct("!5I")
                if parser.current != end:
                    raise FormError
                negative_ttl[owner] = min(ttl, minimum) if max(ttl, minimum) < _TTL_END else 0
            elif record_type == _NS:
                referral = True
            parser.seek(end)
        return negative_ttl, referral and not negative_ttl

    def _read_extended_rcode(self, count: int) -> int:
        """Give the upper bits of the rcode (RFC 6891 §6.1.3)."""
        parser = self._parser
        rcode = 0
        for _ in range(count):
            self._name()
            record_type, _, ttl, length = parser.get_struct(_RECORD)
            if record_type == _OPT:
                rcode = ttl >> 24 << 4
            parser.seek(parser.current + length)
        return rcode

    def _follow(
        self, records: dict[bytes, list[_Record]], rcode: int, negative_ttl: dict[bytes, int]
    ) -> Message:
        """Follow CNAMEs from the name of the question (RFC 1034 §3.6.2), as far as the answer knows."""
        name = self._question.name
        ttl = _TTL_END
        aliases = 0
        while here := records.get(name):
            if found := [record for record in here if record.record_type != _CNAME]:
                if rcode == NXDOMAIN:
                    raise FormError  # it says both
                ttl = min(ttl, *(record.ttl for record in found))
                return Message(rcode, outcome=Outcome.FOUND, records=self._data(found), ttl=ttl)
            aliases += 1
            if aliases > ALIASES_MAXIMUM:
                raise FormError  # a loop, or as good as one
            ttl = min(ttl, here[0].ttl)
            name = self._name_of(here[0])
        negative = _negative_ttl_of(name, negative_ttl)
        if rcode == NXDOMAIN:  # of the last name in the chain (RFC 6604 §2.1)
            outcome = Outcome.NX_DOMAIN
        elif aliases and negative is None:
            return Message(rcode, ttl=ttl, alias=name, aliases=aliases)
        else:
            outcome = Outcome.NO_DATA
        return Message(rcode, outcome=outcome, ttl=None if negative is None else min(ttl, negative))

    def _data(self, records: list[_Record]) -> tuple[Any, ...]:
        """Read the data of records; a record that is there twice counts once (RFC 2181 §5)."""
        read = _READ[self._question.record_type]
        wire = self._parser.wire
        distinct = {wire[record.begin : record.end]: record for record in records}
        return tuple(read(self, record) for record in distinct.values())

    def _octets_of(self, record: _Record) -> bytes:
        return self._parser.wire[record.begin : record.end]

    def _name_of(self, record: _Record, skip: int = 0) -> bytes:
        """Read a name that ends a record's data."""
        self._parser.seek(record.begin + skip)
        name = self._name()
        if self._parser.current != record.end:
            raise FormError
        return name

    def _name(self) -> bytes:
        """Read the name that begins here, as labels in lower case (RFC 1035 §4.1.4)."""
        parser = self._parser
        if parser.wire.startswith(b"\xc0\x0c", parser.current):  # the name of the question, as nearly always
            parser.seek(parser.current + 2)
            return self._question.name
        labels = []
        after = None  # the place behind the first pointer
        lowest = parser.current
        while length := parser.get_uint8():
            self._steps -= 1
            if length <= _LABEL_MAXIMUM:
                labels.append(bytes((length,)) + parser.get_bytes(length))
                continue
            target = (length & 0x3F) << 8 | parser.get_uint8()
            if length < 0xC0 or target >= lowest or self._steps < 0:  # pointers lead backwards
                raise FormError
            after = after or parser.current
            lowest = target
            parser.seek(target)
        if after is not None:
            parser.seek(after)
        name = b"".join(labels).lower() + b"\0"
        if len(name) > _WIRE_NAME_MAXIMUM or self._steps < 0:
            raise FormError
        return name

    def read_ipv4(self, record: _Record) -> IPv4Address:
        """Read the data of A."""
        if record.end - record.begin != 4:
            raise FormError
        return IPv4Address(self._octets_of(record))

    def read_ipv6(self, record: _Record) -> IPv6Address:
        """Read the data of AAAA."""
        if record.end - record.begin != 16:
            raise FormError
        return IPv6Address(self._octets_of(record))

    def read_txt(self, record: _Record) -> bytes:
        """Read the data of TXT: strings, joined without blanks (RFC 7208 §3.3)."""
        octets = self._octets_of(record)
        if not octets:
            raise FormError
        if octets[0] == len(octets) - 1:
            return octets[1:]
        strings = []
        at = 0
        while at < len(octets):
            end = at + 1 + octets[at]
            if end > len(octets):
                raise FormError
            strings.append(octets[at + 1 : end])
            at = end
        return b"".join(strings)

    def read_mx(self, record: _Record) -> MailExchange:
        """Read the data of MX."""
        exchange = text_name(self._name_of(record, 2))
        return MailExchange(
            int.from_bytes(self._parser.wire[record.begin : record.begin + 2], "big"), exchange
        )

    def read_ptr(self, record: _Record) -> bytes:
        """Read the data of PTR."""
        return text_name(self._name_of(record))


_READ: dict[int, Callable[[_Reading, _Record], Any]] = {
    A: _Reading.read_ipv4,
    AAAA: _Reading.read_ipv6,
    MX: _Reading.read_mx,
    PTR: _Reading.read_ptr,
    TXT: _Reading.read_txt,
}


def _negative_ttl_of(name: bytes, negative_ttl: dict[bytes, int]) -> int | None:
    """Give the negative TTL of the zone that a name is in; a SOA from elsewhere says nothing."""
    if not negative_ttl:
        return None
    at = 0
    while True:
        if (ttl := negative_ttl.get(name[at:])) is not None:
            return ttl
        if not name[at]:
            return None
        at += 1 + name[at]
