"""What the commands about a message share: reading it, options that describe a client, who this host is."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

import click

from srsd.cli.common import NO, argument_octets
from srsd.daemon.log import printable
from srsd.syntax.header import HeaderField, parse_message, unfold
from srsd.wire.milter import Connect, Path
from srsd.wire.milter_session import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO, NoReturn

    from srsd.config import Config
    from srsd.resolving import IpAddress

MESSAGE_MAXIMUM = 50_000_000  # octets; Postfix takes 10,240,000 unless it is told otherwise
# Postfix has no limit for a whole header, but no mail that is one comes near this.
HEADER_MAXIMUM = 2_000_000
_POSTCONF_SECONDS = 10


def _parse_client_ip(_: click.Context, __: click.Parameter, value: str | None) -> IpAddress | None:
    if value is None:
        return None
    try:
        address = ip_address(value.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address") from None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


client_ip_option = click.option(
    "--client-ip", metavar="IP", callback=_parse_client_ip, help="The client's address, for that in Received."
)
helo_option = click.option("--helo", metavar="NAME", help="What the client said in HELO.")
mail_from_option = click.option("--mail-from", metavar="ADDRESS", help='MAIL FROM; "<>" for the null sender.')


class Mail(NamedTuple):
    """A message from a file. Lines within a header field end with LF, as Postfix has them for a milter."""

    name: str
    """What to call it."""
    fields: list[HeaderField]
    body: bytes
    """With CRLF."""
    notes: list[str]
    """What was odd about the file."""

    def values(self, name: bytes) -> list[tuple[int, bytes]]:
        """Give all fields of a name, in lower case: the place of each in the header, and its value."""
        return [(at, field.value) for at, field in enumerate(self.fields) if field.name.lower() == name]


def read_mail(path: str, *, may_be_empty: bool = False) -> Mail:
    """Read a message from a file, "-" for standard input, or exit 1 with one line."""
    name = "standard input" if path == "-" else shown_path(path)
    try:
        if path == "-":
            data = _read(sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                data = _read(file)
    except OSError as error:
        exit_no(f"{name}: cannot be read: {error.strerror or error}")
    except ValueError as error:  # also of a name with a NUL
        exit_no(f"{name}: {error}")
    if not data and may_be_empty:
        return Mail(name, [], b"", [])
    try:
        mail = parse_mail(name, data)
    except ValueError as error:
        exit_no(f"{name}: {error}")
    return mail


def _read(file: BinaryIO) -> bytes:
    data = file.read(MESSAGE_MAXIMUM + 1)
    if len(data) > MESSAGE_MAXIMUM:
        raise ValueError(f"has more than {MESSAGE_MAXIMUM:,} octets, which no mail has")
    return data


def parse_mail(name: str, data: bytes) -> Mail:
    """Cut a message. Raises ValueError with the reason for what is none."""
    notes = []
    crlf = b"\r\n" in data[: data.find(b"\n") + 1]
    line_end = b"\r\n" if crlf else b"\n"
    if data.startswith(b"From "):
        next_message = data.find(line_end * 2 + b"From ")
        if next_message >= 0:
            data = data[: next_message + len(line_end)]
            notes.append("the file holds several messages: this is the first")
    end = data.find(line_end * 2)
    header, body = (data, b"") if end < 0 else (data[:end], data[end + 2 * len(line_end) :])
    if len(header) > HEADER_MAXIMUM:
        raise ValueError(f"its header has more than {HEADER_MAXIMUM:,} octets, which no mail has")
    parsed = parse_message(header + line_end)
    if not parsed.fields:
        raise ValueError("has no header field, so it is no message")
    rest = parsed.body.removesuffix(b"\r\n")
    if rest:  # a line that is no field ended the header
        line = rest[:60].partition(b"\r")[0]
        notes.append(f"the header ends at a line that is no field: {printable(line)}")
        rest += b"\r\n\r\n" if end >= 0 else b"\r\n"
    fields = [HeaderField(field.name, field.value.replace(b"\r\n", b"\n")) for field in parsed.fields]
    return Mail(name, fields, rest + (body if crlf else body.replace(b"\n", b"\r\n")), notes)


def exit_no(line: str) -> NoReturn:
    """Print one line and exit 1."""
    click.echo(line, err=True)
    sys.exit(NO)


def shown_path(path: str) -> str:
    """Show the name of a file."""
    return printable(argument_octets(path))


def one_line(value: bytes) -> str:
    """Show a header field's value: unfolded, the folds as single blanks, safe for a terminal."""
    return printable(b" ".join(unfold(value.replace(b"\n", b" \n")).split()))


def name_of_this_host() -> tuple[str, str]:
    """Find what this host is called in mail, and who says so."""
    try:
        done = subprocess.run(
            ["postconf", "-h", "myhostname"],  # noqa: S607 - the admin's own PATH
            capture_output=True,
            timeout=_POSTCONF_SECONDS,
            check=True,
        )
        name = done.stdout.decode(errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        name = ""
    return (name, "postconf -h myhostname") if name else (socket.gethostname(), "the host name")


def authserv_id_of(config: Config) -> tuple[str, str]:
    """Find our name in Authentication-Results, and who says so."""
    if config.milter.authserv_id:
        return config.milter.authserv_id, "milter.authserv_id"
    return name_of_this_host()


def reverse_path(text: str) -> bytes:
    """Spell what an admin wrote as Postfix's smtpd does: `<a@b>`."""
    octets = argument_octets(text)
    return octets if octets.startswith(b"<") else b"<" + octets + b">"


def make_envelope(  # noqa: PLR0913, PLR0917 - all of an envelope
    client: IpAddress | None,
    client_name: bytes,
    helo: bytes,
    path: bytes,
    macros: dict[bytes, bytes],
    recipients: Iterable[bytes] = (),
) -> Envelope:
    """Say what Postfix says of a message before its content.

    Recipients change nothing but whether SRS in the milter rewrites the sender.
    """
    arguments = () if path.isascii() else (b"SMTPUTF8",)
    to = tuple(Path(recipient, ()) for recipient in recipients)
    return Envelope(Connect(client_name, client), helo, Path(path, arguments), to, macros)


def shown_client(client: IpAddress | None, name: bytes = b"") -> str:
    """Show a client: its name and its address."""
    address = "no address" if client is None else str(client)
    return f"{printable(name)}[{address}]" if name else address
