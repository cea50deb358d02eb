"""What usually happens to header fields on their way, undone: as they may have been when they were signed."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.body_changes import find_sections, value_of
from srsd.dkim.canonicalization import SIMPLE
from srsd.dkim.changes import Cause, Change, excerpt
from srsd.dkim.header_fields import field_name
from srsd.syntax.header import HeaderField, unfold
from srsd.syntax.taglist import FWS

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTANCES_MAXIMUM = 6  # of one name, that are left out in turn
_NAMES_MAXIMUM = 100  # different ones in h=
_VALUE_MAXIMUM = 4096  # octets of a value that is changed
_TAGS_MAXIMUM = 4  # in one subject
_BODY_MAXIMUM = 5_000_000  # octets in which parts are looked for
_COPIES_MAXIMUM = 100  # fields in z=

# What somebody puts before a subject, or behind it. Each alternative begins with an octet of its own, and is
# bounded; what is optional comes last.
_TAG = re.compile(rb"(?:\[[^\]\r\n]{1,80}\]|\{[^}\r\n]{1,80}\}|\*{2,5}[^*\r\n]{1,80}\*{2,5})[ \t]*:?[ \t]*")
_WORD = re.compile(rb"[ \t]*(?:EXTERNAL|SPAM|CAUTION|BULK|WARNING)[ \t]*[:!-]?[ \t]*", re.IGNORECASE)
_ENCODED_WORD = re.compile(rb"=\?([A-Za-z0-9-]{1,20})\?([BbQq])\?([^?\s]{0,200})\?=")
_BETWEEN_WORDS = re.compile(rb"\?=\s{1,20}=\?")
_CHARSETS = {b"utf-8": "utf-8", b"us-ascii": "ascii", b"iso-8859-1": "latin-1", b"windows-1252": "cp1252"}
_HEX_OCTET = re.compile(rb"=([0-9A-F]{2})")

_KEPT_COPIES = {  # where rewriters keep what was there
    b"from": (b"x-original-from", b"x-mailman-original-from", b"original-from", b"reply-to"),
    b"subject": (b"thread-topic", b"x-original-subject"),
    b"to": (b"x-original-recipients", b"x-mailman-original-to"),
    b"reply-to": (b"x-original-reply-to",),
    b"message-id": (b"x-original-message-id", b"x-google-original-message-id"),
    b"date": (b"x-original-date",),
}
_LIST_FIELDS = (b"sender", b"reply-to", b"precedence", b"errors-to", b"mailing-list", b"x-mailing-list")
_ADDRESS_FIELDS = (b"from", b"to", b"cc", b"reply-to", b"sender")
_TRANSFER_ENCODINGS = (b"8bit", b"7bit", b"quoted-printable", b"base64", b"binary")


class Option(NamedTuple):
    """The fields of some names as they may have been, by name in lower case, from the top."""

    change: Change
    fields: dict[bytes, list[HeaderField]]


class SignedHeader:
    """The fields that a signature's h= names."""

    def __init__(self, fields: list[HeaderField], signature: HeaderField, names: tuple[bytes, ...]) -> None:
        self.all = fields
        self.names = names
        self.by_name: dict[bytes, list[HeaderField]] = {name: [] for name in names}
        for field in fields:
            name = field_name(field)
            if name in self.by_name and field is not signature:
                self.by_name[name].append(field)

    @property
    def missing(self) -> list[bytes]:
        """Give the names of which there is no field: signed as absent, or taken away since."""
        return [name for name, fields in self.by_name.items() if not fields]


def undo_in_header(
    header: SignedHeader, body: bytes, canonicalization: bytes, copies: dict[bytes, list[bytes]]
) -> Iterator[Option]:
    """Give the signed fields as they may have been, one thing undone each, the likely ones first."""
    yield from _undo_list(header)
    for name in list(header.by_name)[:_NAMES_MAXIMUM]:
        fields = header.by_name[name]
        yield from _undo_rewriting(header, name, copies)
        if name == b"subject":
            yield from _undo_tags(fields)
        if name in _CONTENT_FIELDS:
            yield from _CONTENT_FIELDS[name](header, body)
        yield from _undo_adding(name, fields)
    for name in list(header.by_name)[:_NAMES_MAXIMUM]:
        yield from _undo_writing(name, header.by_name[name], canonicalization)


def _undo_list(header: SignedHeader) -> Iterator[Option]:
    """Leave out all that mailing lists add."""
    added = [
        name
        for name, fields in header.by_name.items()
        if fields and (name.startswith(b"list-") or name in _LIST_FIELDS)
    ]
    if len(added) > 1:
        yield Option(Change(Cause.LIST_FIELDS_ADDED, b", ".join(added)), {name: [] for name in added})


def _undo_adding(name: bytes, fields: list[HeaderField]) -> Iterator[Option]:
    if not fields:
        yield Option(Change(Cause.EMPTY_FIELD_REMOVED, name), {name: [HeaderField(name, b"")]})
        return
    if name == b"from" and len(fields) == 1:
        return
    for at in range(min(len(fields), _INSTANCES_MAXIMUM)):
        shown = name + b":" + excerpt(unfold(fields[at].value))
        yield Option(Change(Cause.FIELD_ADDED, shown), {name: [*fields[:at], *fields[at + 1 :]]})
    if len(fields) > 1:
        yield Option(Change(Cause.ORDER, name), {name: fields[::-1]})


def _change_each(
    name: bytes, fields: list[HeaderField], change: Change, value: bytes, at: int = -1
) -> Option:
    changed = fields.copy()
    changed[at] = HeaderField(fields[at].name, value)
    return Option(change, {name: changed})


def _undo_tags(fields: list[HeaderField]) -> Iterator[Option]:
    """Take tags out of the subject: each alone, and all before the subject itself."""
    if not fields or len(fields[-1].value) > _VALUE_MAXIMUM:
        return
    value = fields[-1].value
    tags = [*_TAG.finditer(value)][:_TAGS_MAXIMUM]
    word = _WORD.match(value)
    for tag in (*tags, *([word] if word else [])):
        before, after = value[: tag.start()].rstrip(b" \t"), value[tag.end() :].lstrip(b"\r\n")
        change = Change(Cause.PREFIX, tag[0].strip())
        for blank in (b" ", b""):
            yield _change_each(b"subject", fields, change, before + blank + after)
        if before.strip():  # [tag] Re: x, from Re: [tag] x, or the other way round
            yield _change_each(b"subject", fields, change, b" " + after)
    if len(tags) > 1:
        rest = _TAG.sub(b" ", value)
        change = Change(Cause.PREFIX, b" ".join(tag[0].strip() for tag in tags))
        yield _change_each(b"subject", fields, change, rest)


def _undo_rewriting(header: SignedHeader, name: bytes, copies: dict[bytes, list[bytes]]) -> Iterator[Option]:
    """Take what another field, or the z= of the signature, keeps of a field."""
    if copies.get(name):
        fields = [HeaderField(name, value) for value in copies[name]]
        shown = name + b": was " + excerpt(unfold(copies[name][-1]))
        yield Option(Change(Cause.COPY_DIFFERS, shown), {name: fields})
    fields = header.by_name[name]
    for other in _KEPT_COPIES.get(name, ()):
        kept = next((field for field in header.all if field_name(field) == other), None)
        if kept is None or len(kept.value) > _VALUE_MAXIMUM:
            continue
        spelled = HeaderField(fields[-1].name if fields else name, kept.value)
        change = Change(Cause.FIELD_REWRITTEN, name + b", kept in " + kept.name)
        yield Option(change, {name: [*fields[:-1], spelled]})
        if other in header.by_name:  # and there was no such field
            yield Option(change, {name: [*fields[:-1], spelled], other: []})


def _undo_transfer_encoding(header: SignedHeader, body: bytes) -> Iterator[Option]:
    del body
    name = b"content-transfer-encoding"
    fields = header.by_name[name]
    present = value_of(fields, name)
    for encoding in _TRANSFER_ENCODINGS:
        for spelled in (encoding, encoding.upper()):
            if spelled != present:
                old = fields[-1].name if fields else b"Content-Transfer-Encoding"
                change = Change(Cause.TRANSFER_ENCODING, b"%b, was %b" % (present or b"none", spelled))
                yield Option(change, {name: [*fields[:-1], HeaderField(old, b" " + spelled)]})


def _undo_content_type(header: SignedHeader, body: bytes) -> Iterator[Option]:
    """Take the fields of the body's first parts, which may have been those of the message."""
    if len(body) > _BODY_MAXIMUM:
        return
    fields = header.by_name[b"content-type"]
    for section in find_sections(body, value_of(header.all, b"content-type"))[:2]:
        lines = body[section.begin : section.content].replace(b"\r\n ", b"\n ").replace(b"\r\n\t", b"\n\t")
        part = {}
        for line in lines.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and name.lower().startswith(b"content-"):
                part[name.lower()] = [HeaderField(name, value)]
        if fields:
            changed = {name: part.get(name, []) for name in header.by_name if name.startswith(b"content-")}
            detail = section.value(b"content-type")
            yield Option(Change(Cause.CONTENT_TYPE, detail), changed)
            yield Option(Change(Cause.CONTENT_TYPE, detail), {b"content-type": part.get(b"content-type", [])})


_CONTENT_FIELDS = {
    b"content-transfer-encoding": _undo_transfer_encoding,
    b"content-type": _undo_content_type,
}


# How a field is written ------------------------------------------------------------------------------


def _undo_writing(name: bytes, fields: list[HeaderField], canonicalization: bytes) -> Iterator[Option]:
    if not fields or len(fields[-1].value) > _VALUE_MAXIMUM:
        return
    value = fields[-1].value
    folded = Change(Cause.FOLDED, name)
    for other in other_folds(value, simple=canonicalization == SIMPLE):
        yield _change_each(name, fields, folded, other)
    if canonicalization == SIMPLE:
        for spelled in dict.fromkeys((name, name.title(), _as_usual(name))):
            if spelled != fields[-1].name:
                change = Change(Cause.NAME_SPELLED, b"%b, was %b" % (fields[-1].name, spelled))
                yield Option(change, {name: [*fields[:-1], HeaderField(spelled, value)]})
    if b"=?" in value:
        decoded = decode_words(value)
        if decoded != value:
            yield _change_each(name, fields, Change(Cause.HEADER_ENCODED, name), decoded)
    if name in _ADDRESS_FIELDS:
        for other in _other_quotes(value):
            yield _change_each(name, fields, Change(Cause.QUOTES, name), other)


def _as_usual(name: bytes) -> bytes:
    return {b"message-id": b"Message-ID", b"mime-version": b"MIME-Version"}.get(name, name.title())


def other_folds(value: bytes, *, simple: bool) -> list[bytes]:
    """Write a value with other folds. Where the canonicalization is relaxed, folds as such do not matter."""
    lines = value.replace(b"\r\n", b"\n").split(b"\n")
    rest = [line.lstrip(b" \t") for line in lines[1:]]
    folds = [b""] + ([b"\n ", b"\n\t", b" ", b"\n        ", b"\n    ", b"\n  "] if simple else [])
    found = [fold.join([lines[0], *rest]) for fold in folds] if rest else []
    if simple:
        found += [b" " + value.lstrip(b" \t"), value.lstrip(b" \t"), value.rstrip(b" \t")]
        found += [value.replace(b", ", b",\n ").replace(b",\n\n", b",\n"), value.replace(b"\t", b" ")]
    return [each for each in dict.fromkeys(found) if each != value.replace(b"\r\n", b"\n")]


def _other_quotes(value: bytes) -> list[bytes]:
    name, angle, rest = value.partition(b"<")
    bare = name.strip(FWS)
    if not angle or not bare or b"," in name:
        return []
    if bare.startswith(b'"') and bare.endswith(b'"'):
        return [b" " + bare[1:-1] + b" <" + rest]
    return [b' "' + bare + b'" <' + rest]


def decode_words(value: bytes) -> bytes:
    """Decode encoded words (RFC 2047) to UTF-8; those that cannot be stay."""
    return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub(b"?==?", value))


def _decode_word(found: re.Match[bytes]) -> bytes:
    charset = _CHARSETS.get(found[1].lower())
    if charset is None:
        return found[0]
    try:
        text = a2b_base64(found[3]) if found[2] in b"Bb" else a2b_qp(found[3], header=True)
        return text.decode(charset).encode()
    except (Error, UnicodeDecodeError):
        return found[0]


def read_copies(value: bytes) -> dict[bytes, list[bytes]]:
    """Read a z= (RFC 6376 §3.5): values by name in lower case, in the order that the copies have."""
    copies: dict[bytes, list[bytes]] = {}
    for each in value.translate(None, FWS).split(b"|")[:_COPIES_MAXIMUM]:
        name, colon, text = each.partition(b":")
        if colon:
            decoded = _HEX_OCTET.sub(lambda found: bytes.fromhex(found[1].decode()), text)
            copies.setdefault(name.lower(), []).append(decoded.replace(b"\r\n", b"\n"))
    return copies
