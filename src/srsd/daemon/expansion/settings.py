"""What Postfix's main.cf and master.cf say about recipients, as postconf(1) tells it."""

from __future__ import annotations

from dataclasses import dataclass

from srsd.daemon.expansion import postmap
from srsd.daemon.expansion.tables import LookupFailedError

PARAMETERS = (
    "alias_maps",
    "always_bcc",
    "append_at_myorigin",
    "append_dot_mydomain",
    "canonical_classes",
    "canonical_maps",
    "config_directory",
    "default_database_type",
    "default_transport",
    "inet_interfaces",
    "local_transport",
    "mydestination",
    "mydomain",
    "myorigin",
    "owner_request_special",
    "parent_domain_matches_subdomains",
    "propagate_unmatched_extensions",
    "proxy_interfaces",
    "queue_directory",
    "recipient_bcc_maps",
    "recipient_canonical_classes",
    "recipient_canonical_maps",
    "recipient_delimiter",
    "relay_domains",
    "relay_transport",
    "reset_owner_alias",
    "sender_bcc_maps",
    "sender_canonical_classes",
    "sender_canonical_maps",
    "transport_maps",
    "virtual_alias_domains",
    "virtual_alias_expansion_limit",
    "virtual_alias_maps",
    "virtual_alias_recursion_limit",
    "virtual_mailbox_domains",
    "virtual_transport",
)


@dataclass(frozen=True)
class Settings:
    """Parameters by name, and the delivery agent behind each transport."""

    parameters: dict[str, str]
    agents: dict[str, str]  # transport -> program: smtp, local, virtual, pipe, ...

    def __getitem__(self, name: str) -> str:
        """Give a parameter's value; "" where Postfix does not know it."""
        return self.parameters.get(name, "")

    def yes(self, name: str) -> bool:
        """Tell whether a parameter says yes."""
        return self[name] == "yes"

    def number(self, name: str, default: int) -> int:
        """Give a parameter that is a number."""
        return int(self[name]) if self[name].isdecimal() else default


def parse_parameters(text: str) -> dict[str, str]:
    """Read what `postconf -x NAME...` prints."""
    parameters = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            parameters[name.strip()] = value.strip()
    return parameters


def parse_services(text: str) -> dict[str, str]:
    """Read what `postconf -M` prints: which program is behind each transport."""
    agents = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 8 and not line[0].isspace() and fields[1] == "unix":
            agents[fields[0]] = fields[7]
    return agents


async def read_settings() -> Settings:
    """Ask postconf. Raises LookupFailedError."""
    text = (await postmap.run("postconf", "-x", *PARAMETERS)).decode(errors="surrogateescape")
    services = (await postmap.run("postconf", "-M")).decode(errors="surrogateescape")
    parameters = parse_parameters(text)
    if not parameters.get("queue_directory"):
        raise LookupFailedError("postconf does not know queue_directory")
    origin = parameters.get("myorigin", "")
    if origin.startswith("/"):  # Debian's /etc/mailname
        parameters["myorigin"] = (await postmap.read(origin)).decode(errors="replace").strip()
    return Settings(parameters, parse_services(services))
