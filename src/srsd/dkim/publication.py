"""A key of ours in DNS: the record that should be there, and whether it is (RFC 6376 §3.6)."""

from __future__ import annotations

from binascii import b2a_base64
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.key_record import parse_key_record
from srsd.dkim.keystore import key_name
from srsd.dkim.result import Reason
from srsd.dkim.signature import Flaw
from srsd.resolving import Outcome

if TYPE_CHECKING:
    from srsd.crypto import PrivateKey
    from srsd.dkim.sign import Signer
    from srsd.resolving import Answer

_STRING_MAXIMUM = 255  # octets of one string in a TXT record, RFC 1035 §3.3
_PROBE = bytes(range(32))  # any digest will do


class Publication(Enum):
    """Whether DNS has the key. The value is what an admin reads."""

    YES = "yes"
    NO = "no"
    OTHER_KEY = "other key"
    ERROR = "error"  # there is something, or no answer, that lets nobody verify


class Published(NamedTuple):
    """What DNS says of a key."""

    publication: Publication
    detail: str = ""  # printable


def record_of(key: PrivateKey) -> bytes:
    """Give the key record of a key, as one text."""
    public = b2a_base64(key.public_octets(), newline=False)
    return b"v=DKIM1; k=%b; p=%b" % (key.key_type.value, public)


def zone_line(signer: Signer) -> str:
    """Give the TXT record as a line of a zone file, in strings of the length that they may have."""
    text = record_of(signer.key).decode()
    strings = [text[at : at + _STRING_MAXIMUM] for at in range(0, len(text), _STRING_MAXIMUM)]
    quoted = " ".join(f'"{each}"' for each in strings)
    name = key_name(signer.domain, signer.selector).decode()
    return f"{name}. IN TXT {quoted if len(strings) == 1 else f'( {quoted} )'}"


def judge_publication(key: PrivateKey, answer: Answer[bytes]) -> Published:
    """Say whether the answer to the query for a key's record lets others verify what the key signs."""
    if answer.outcome is not Outcome.FOUND:
        missing = answer.outcome in (Outcome.NO_DATA, Outcome.NX_DOMAIN)
        return Published(Publication.NO if missing else Publication.ERROR, answer.outcome.value)
    if len(answer.records) != 1:
        return Published(Publication.ERROR, f"{len(answer.records)} TXT records where one should be")
    record = parse_key_record(answer.records[0])
    if isinstance(record, Flaw):
        other = record.reason is Reason.KEY_TYPE
        detail = f" ({record.detail})" if record.detail else ""
        return Published(Publication.OTHER_KEY if other else Publication.ERROR, record.reason.phrase + detail)
    public = record.public_key
    # The same key may be written in two ways: what counts is that it verifies.
    if public.key_type is not key.key_type or not public.verify(key.sign(_PROBE), _PROBE):
        return Published(Publication.OTHER_KEY, f"{public.key_type.value.decode()}, {public.bits} bits")
    return Published(Publication.YES, "with t=y: for tests only" if record.testing else "")
