"""Postfix's tables and parameters without Postfix: for tests of what is made of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from srsd.daemon.expansion.settings import Settings
from srsd.daemon.expansion.tables import LookupFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGENTS = {
    "smtp": "smtp",
    "relay": "smtp",
    "local": "local",
    "virtual": "virtual",
    "lmtp": "lmtp",
    "maildrop": "pipe",
    "error": "error",
    "discard": "discard",
}
PARAMETERS = {
    "myorigin": "mx.here.example",
    "mydomain": "here.example",
    "mydestination": "mx.here.example, here.example",
    "inet_interfaces": "192.0.2.1",
    "proxy_interfaces": "",
    "recipient_delimiter": "+",
    "propagate_unmatched_extensions": "canonical, virtual",
    "parent_domain_matches_subdomains": "debug_peer_list,relay_domains,smtpd_access_maps",
    "local_transport": "local:mx.here.example",
    "virtual_transport": "virtual",
    "relay_transport": "relay",
    "default_transport": "smtp",
    "canonical_classes": "envelope_sender, envelope_recipient, header_sender, header_recipient",
    "recipient_canonical_classes": "envelope_recipient, header_recipient",
    "virtual_alias_domains": "$virtual_alias_maps",
    "virtual_alias_maps": "hash:virtual",
    "alias_maps": "hash:aliases",
    "virtual_alias_expansion_limit": "1000",
    "virtual_alias_recursion_limit": "1000",
    "owner_request_special": "yes",
    "reset_owner_alias": "no",
    "queue_directory": "/var/spool/postfix",
}


def settings(**parameters: str) -> Settings:
    """Give Postfix's defaults, but for these parameters."""
    values = {**PARAMETERS, **parameters}
    if values["virtual_alias_domains"] == "$virtual_alias_maps":
        values["virtual_alias_domains"] = values["virtual_alias_maps"]
    return Settings(values, AGENTS)


class Tables:
    """Tables by their names in main.cf. Those of regular expressions have them for keys; None cannot be asked."""

    def __init__(self, tables: Mapping[str, Mapping[str, str] | None], **files: str) -> None:
        self.tables = dict(tables)
        self.files = files
        self.asked: list[tuple[str, str]] = []

    async def ask(self, table: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Look keys up, without regard to case."""
        self.asked += [(table, key.decode()) for key in keys]
        content = self.tables.get(table, {})
        if content is None:
            raise LookupFailedError(f"{table}: out of order")
        found = {}
        for key in keys:
            text = key.decode().lower()
            if table.startswith("regexp:"):
                matches = (value for pattern, value in content.items() if re.search(pattern, text))
                value = next(matches, None)
            else:
                value = content.get(text)
            if value is not None:
                found[key] = value.encode()
        return found

    async def read(self, path: str) -> bytes:
        """Read a file."""
        name = path.rpartition("/")[2]
        if name not in self.files:
            raise LookupFailedError(f"{path} is not there")
        return self.files[name].encode()
