"""A stand-in for Dovecot's authentication service, for smtpd_sasl_type = dovecot: one login, by PLAIN.

with SaslServer(postfix.queue_directory / "srs/auth", login="alice", password="secret"):
    main_cf = "smtpd_sasl_type = dovecot\\nsmtpd_sasl_path = srs/auth\\n"
"""

from __future__ import annotations

import base64
import socketserver
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

GREETING = "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n"


class SaslServer:
    """The service, with a thread for each of Postfix's smtpd processes."""

    def __init__(self, path: Path, *, login: str, password: str) -> None:
        self._server = _Server(str(path), _Connection)
        path.chmod(0o666)
        self._server.login = login
        self._server.response = f"\0{login}\0{password}".encode()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    login: str
    response: bytes  # RFC 4616
    daemon_threads = True
    block_on_close = False


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.wfile.write(GREETING.encode())
        for line in self.rfile:
            words = line.decode().rstrip("\n").split("\t")
            if words[0] == "AUTH":
                good = base64.b64decode(words[-1].removeprefix("resp=")) == self.server.response
                answer = f"OK\t{words[1]}\tuser={self.server.login}\n" if good else f"FAIL\t{words[1]}\n"
                self.wfile.write(answer.encode())
