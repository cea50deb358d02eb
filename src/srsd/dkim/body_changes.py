"""What usually happens to a body on its way, undone: bodies as they may have been when they were signed."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp, b2a_base64, b2a_qp
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from srsd.dkim.changes import Cause, Change, Work, excerpt
from srsd.syntax.header import unfold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from srsd.syntax.header import HeaderField

_OCTETS_MAXIMUM = 5_000_000  # of a body that is changed line by line
_LINES_MAXIMUM = 200_000  # the same
_SECTIONS_MAXIMUM = 64
_ENCODED_MAXIMUM = 4  # sections that are tried in all combinations: 15
_BOUNDARY_MAXIMUM = 70  # octets, RFC 2046 §5.1.1
_LONG_LINE = 990  # octets; Postfix breaks at 998 (smtp_line_length_limit), others a little earlier
_BASE64_LINE = 57  # octets that make a line of 76, RFC 2045 §6.8
_BOUNDARY = re.compile(rb'boundary[ \t]*=[ \t]*(?:"([^"\r\n]{1,70})"|([^";\s]{1,70}))', re.IGNORECASE)
_ENCODINGS = (b"quoted-printable", b"base64")


class Section(NamedTuple):
    """A part of a multipart body; indexes into it."""

    begin: int
    """Of its header."""
    content: int
    end: int
    """Of its content, before the line end that belongs to the delimiter."""
    fields: list[tuple[bytes, bytes]]
    """Names in lower case, and values, unfolded."""

    def value(self, name: bytes) -> bytes:
        """Give the value of a field; b"" without one."""
        return next((value for each, value in self.fields if each == name), b"")

    @property
    def encoding(self) -> bytes:
        """Give its Content-Transfer-Encoding, in lower case."""
        return self.value(b"content-transfer-encoding").lower()


def value_of(fields: Iterable[HeaderField], name: bytes) -> bytes:
    """Give the value of the first field of a name in lower case, unfolded."""
    return next((unfold(field.value) for field in fields if field.name.lower() == name), b"")


def undo_in_body(body: bytes, fields: list[HeaderField], work: Work) -> Iterator[tuple[list[Change], bytes]]:
    """Give bodies as they may have been: first the body itself, then with one thing undone each."""
    yield [], body
    if len(body) > _OCTETS_MAXIMUM or body.count(b"\n") > _LINES_MAXIMUM:
        return
    for cause, undo in _LINE_CHANGES:
        changed = undo(body)
        if changed != body:
            yield [Change(cause)], changed
    yield from _undo_encoding(body, fields)
    sections = find_sections(body, value_of(fields, b"content-type"))
    yield from _undo_downgrade(body, sections, work)
    if sections:  # the whole message has become the first part
        first = sections[0]
        yield [Change(Cause.WRAPPED, first.value(b"content-type"))], body[first.content : first.end] + b"\r\n"


# Line by line --------------------------------------------------------------------------------------


def _each_line(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: b"\r\n".join([change(line) for line in body.split(b"\r\n")])


def _mend_line_ends(body: bytes) -> bytes:
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _unquote_from(line: bytes) -> bytes:
    return line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line


def _quote_from(line: bytes) -> bytes:
    return b">" + line if line.lstrip(b">").startswith(b"From ") else line


def _join_long_lines(body: bytes) -> bytes:
    """Take out the CRLF and blank with which Postfix breaks a line that is too long for SMTP."""
    pieces: list[bytes] = []
    length = 0
    for line in body.split(b"\r\n"):
        if pieces and length >= _LONG_LINE and line.startswith(b" "):
            pieces.append(line[1:])
        else:
            pieces.append((b"\r\n" if pieces else b"") + line)
        length = len(line)
    return b"".join(pieces)


_LINE_CHANGES: list[tuple[Cause, Callable[[bytes], bytes]]] = [
    (Cause.LINE_ENDS, _mend_line_ends),
    (Cause.LONG_LINES, _join_long_lines),
    (Cause.BLANKS_ADDED, _each_line(lambda line: line.rstrip(b" \t"))),
    (Cause.BLANKS_ADDED, _each_line(lambda line: b"-- " if line == b"-- " else line.rstrip(b" \t"))),
    (Cause.BLANKS_REMOVED, _each_line(lambda line: b"-- " if line == b"--" else line)),
    (Cause.FROM_QUOTED, _each_line(_unquote_from)),
    (Cause.FROM_UNQUOTED, _each_line(_quote_from)),
    (Cause.DOTS_ADDED, _each_line(lambda line: line[1:] if line.startswith(b"..") else line)),
    (Cause.DOTS_REMOVED, _each_line(lambda line: b"." + line if line.startswith(b".") else line)),
    (Cause.TABS, lambda body: body.replace(b"\t", b" ")),
    (Cause.EMPTY_LINE_REMOVED, lambda body: b"\r\n" + body),
]


# Content-Transfer-Encoding ---------------------------------------------------------------------------


def _decode(encoding: bytes, content: bytes) -> bytes | None:
    """Decode content (RFC 2045 §6.7, §6.8); None if it cannot be."""
    if encoding == b"quoted-printable":
        return a2b_qp(content)
    try:
        return a2b_base64(content)
    except Error:
        return None


def _in_base64(content: bytes) -> bytes:
    lines = [
        b2a_base64(content[at : at + _BASE64_LINE], newline=False)
        for at in range(0, len(content), _BASE64_LINE)
    ]
    return b"\r\n".join([*lines, b""])


def _undo_encoding(body: bytes, fields: list[HeaderField]) -> Iterator[tuple[list[Change], bytes]]:
    """Undo what was done to a body of one part."""
    encoding = value_of(fields, b"content-transfer-encoding").lower()
    if encoding in _ENCODINGS:
        decoded = _decode(encoding, body)
        if decoded is not None and decoded != body:
            yield [Change(Cause.DOWNGRADED, encoding)], decoded
            if encoding == b"base64":  # the line end before encoding might have been another one
                yield [Change(Cause.DOWNGRADED, encoding)], _mend_line_ends(decoded)
                yield [Change(Cause.REENCODED, b"base64")], b2a_qp(decoded).replace(b"\n", b"\r\n")
            else:
                yield [Change(Cause.REENCODED, encoding)], _in_base64(decoded)
        return
    if not value_of(fields, b"content-type").lower().startswith(b"multipart/"):
        encoded = b2a_qp(body.replace(b"\r\n", b"\n")).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        yield [Change(Cause.DECODED, b"quoted-printable")], encoded
        yield [Change(Cause.DECODED, b"base64")], _in_base64(body)


def _undo_downgrade(body: bytes, sections: list[Section], work: Work) -> Iterator[tuple[list[Change], bytes]]:
    """Decode parts of a multipart that may have been 8-bit, alone and together."""
    encoded = [section for section in sections if section.encoding in _ENCODINGS]
    texts = [
        section
        for section in encoded
        if section.value(b"content-type").lower().startswith(b"text/") or not section.value(b"content-type")
    ]
    groups: list[tuple[Section, ...]] = [tuple(texts)] if len(texts) > _ENCODED_MAXIMUM else []
    few = texts[:_ENCODED_MAXIMUM]
    for size in range(len(few), 0, -1):
        groups += combinations(few, size)
    for group in groups:
        for place in ("same", "last", "first"):
            if not work.take(3 * len(body)):
                return
            changed = _decode_sections(body, group, place)
            if changed is not None:
                names = b", ".join(
                    sorted({each.value(b"content-transfer-encoding").lower() for each in group})
                )
                yield [Change(Cause.DOWNGRADED, names)], changed


def _decode_sections(body: bytes, sections: tuple[Section, ...], place: str) -> bytes | None:
    pieces = []
    at = 0
    for section in sections:
        decoded = _decode(section.encoding, body[section.content : section.end])
        if decoded is None:
            return None
        header = _with_8bit(body[section.begin : section.content], place)
        pieces += [body[at : section.begin], header, decoded]
        at = section.end
    return b"".join([*pieces, body[at:]])


def _with_8bit(header: bytes, place: str) -> bytes:
    """Write 8bit into the header of a part. Postfix puts the field last, wherever it was."""
    lines = header.removesuffix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n")
    name = b"content-transfer-encoding:"
    at = next((at for at, line in enumerate(lines) if line.lower().startswith(name)), None)
    if at is None:
        return header
    line = lines.pop(at)[: len(name)] + b" 8bit"
    lines.insert({"same": at, "last": len(lines), "first": 0}[place], line)
    return b"\r\n".join([*lines, b"", b""])


# Multiparts ------------------------------------------------------------------------------------------


def boundaries_of(text: bytes) -> list[bytes]:
    """Find boundaries of multiparts in the value of a Content-Type, or in a body that has such inside."""
    found = [(match[1] or match[2]) for match in _BOUNDARY.finditer(text)]
    return [*dict.fromkeys(each for each in found if len(each) <= _BOUNDARY_MAXIMUM)][:_SECTIONS_MAXIMUM]


def find_sections(body: bytes, content_type: bytes) -> list[Section]:
    """Find the parts of a multipart body from the top, inner ones too, each up to the next delimiter."""
    outer = boundaries_of(content_type)
    if not outer:
        return []
    delimiters = {b"--" + each for each in [*outer, *boundaries_of(body)]}
    delimiters |= {each + b"--" for each in delimiters}
    marks: list[tuple[int, int]] = []  # where a delimiter begins, and where the line after it does
    at = 0 if body.startswith(b"--") else body.find(b"\r\n--") + 2
    while at >= 2 or (at == 0 and not marks):
        end = body.find(b"\r\n", at)
        end = len(body) if end < 0 else end
        if end - at <= _BOUNDARY_MAXIMUM + 8 and body[at:end].rstrip(b" \t") in delimiters:
            marks.append((at, end + 2))
            if len(marks) > _SECTIONS_MAXIMUM:
                break
        following = body.find(b"\r\n--", at + 2)
        if following < 0:
            break
        at = following + 2
    return [section for here, after in pairwise(marks) if (section := _section(body, here[1], after[0] - 2))]


def _section(body: bytes, begin: int, end: int) -> Section | None:
    if body.startswith(b"\r\n", begin):
        content = begin + 2
    else:
        found = body.find(b"\r\n\r\n", begin, end)
        if found < 0:
            return None
        content = found + 4
    header = body[begin:content].replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    if len(header) > 10_000 or content > end:
        return None
    fields = []
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return Section(begin, content, end, fields)


def describe_lines(lines: list[bytes]) -> bytes:
    """Show lines that were added: the first one with anything in it, and how many there are."""
    first = next((line for line in lines if line.strip()), b"")
    return b"%d line%b: %b" % (len(lines), b"" if len(lines) == 1 else b"s", excerpt(first))
