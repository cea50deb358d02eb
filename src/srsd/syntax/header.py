"""Header fields with the octets that they were sent with (RFC 5322 §2.2), and cutting a message into them."""

from __future__ import annotations

from typing import NamedTuple


class HeaderField(NamedTuple):
    """One header field as it stands in the message.

    The value begins right after the colon, so with its blank, and ends before the line end that closes
    the field. Inside, a folded line's end is CRLF or, as Postfix sends it to milters, LF.
    """

    name: bytes
    value: bytes


def unfold(value: bytes) -> bytes:
    """Join the lines of a field's value (RFC 5322 §2.2.3), without the blanks at its ends."""
    if b"\n" in value or b"\r" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\r", b"")
    return value.strip(b" \t")


class Message(NamedTuple):
    """A message from a file. The body's lines end with CRLF."""

    fields: list[HeaderField]
    body: bytes


def parse_message(data: bytes) -> Message:
    """Cut a message as it lies in a file or on a wire; lines end with CRLF or LF, whichever comes first.

    A first line `From ` of a mailbox is dropped. Header lines that are no field end the header, as
    Postfix has it: they begin the body.
    """
    if b"\r\n" not in data[: data.find(b"\n") + 1]:
        data = data.replace(b"\n", b"\r\n")
    lines = data.split(b"\r\n")
    if lines and lines[0].startswith((b"From ", b">From ")):
        del lines[0]
    found: list[tuple[bytes, list[bytes]]] = []
    number = 0
    for line in lines:
        if line.startswith((b" ", b"\t")) and found:
            found[-1][1].append(line)
        else:
            name, colon, value = line.partition(b":")
            name = name.rstrip(b" \t")
            if not colon or not _is_field_name(name):
                break
            found.append((name, [value]))
        number += 1
    fields = [HeaderField(name, b"\r\n".join(value)) for name, value in found]
    if number < len(lines) and not lines[number]:
        number += 1  # the empty line between header and body
    return Message(fields, b"\r\n".join(lines[number:]))


def _is_field_name(name: bytes) -> bool:
    """Tell whether these are the printable octets of RFC 5322 §3.6.8 ftext."""
    return bool(name) and not name.translate(None, _FTEXT)


_FTEXT = bytes(octet for octet in range(33, 127) if octet != ord(":"))
