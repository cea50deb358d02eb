"""From a recipient to where its mail ends: canonical(5), virtual(5), transport(5), aliases(5), one by one.

The order is Postfix's: cleanup(8) has the canonical and virtual alias maps, trivial-rewrite(8) finds the
class of the domain and its transport, local(8) has the aliases; what it sends on meets cleanup(8) again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from srsd.daemon.expansion.addresses import Key, keys_of, parse_list, spell, split_extension
from srsd.daemon.expansion.tables import DomainList, LookupFailedError, Parents, TableList
from srsd.daemon.log import loggable
from srsd.srs import is_srs
from srsd.syntax.domain import fold_domain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from srsd.daemon.expansion.settings import Settings
    from srsd.daemon.expansion.tables import Asker

ADDRESSES_MAXIMUM = 10_000  # that one recipient may lead to, before it is given up
LOCAL_DEPTH_MAXIMUM = 100  # as local(8) has it
CANONICAL_DEPTH_MAXIMUM = 10  # as cleanup(8) has it
STEPS_MAXIMUM = 100  # that are told
_SHOWN_MAXIMUM = 200  # octets of a table's answer that are told
_SMTP, _LOCAL = "smtp", "local"  # delivery agents: that leaves this host, that has aliases


class Walked(NamedTuple):
    """Where a recipient leads."""

    leaves: bytes  # the first address found that leaves this host; b"" if none does
    steps: tuple[str, ...]  # what led there, for admins


class _Address(NamedTuple):
    local_part: bytes
    domain: bytes

    @property
    def folded(self) -> tuple[bytes, bytes]:
        return self.local_part.lower(), self.domain.lower()


class _Kind(Enum):
    """The classes of ADDRESS_CLASS_README; the value is the parameter with the class's transport."""

    LOCAL = "local_transport"
    ALIAS = ""
    MAILBOX = "virtual_transport"
    RELAY = "relay_transport"
    OTHER = "default_transport"


class _Item(NamedTuple):
    """An address that is still to be followed."""

    address: _Address
    within: bytes = b""  # the alias that it came out of; b"" before local(8)
    local: bool = False  # it is at local(8) already, else at cleanup(8)
    owned: bool = False  # an owner- alias has become the sender
    included: bool = False  # it came out of an :include: file
    depth: int = 0


class Routes:
    """What one configuration of Postfix does with recipients."""

    def __init__(
        self,
        settings: Settings,
        asker: Asker,
        *,
        relayed_stays: bool = False,
        own_tables: Iterable[str] = (),
    ) -> None:
        """own_tables are those of Postfix's tables that srsd itself answers: they have SRS addresses only."""
        self._settings = settings
        self._asker = asker
        self._relayed_stays = relayed_stays
        self._delimiters = settings["recipient_delimiter"].encode()
        self._owners = settings["owner_request_special"] != "no"
        self._propagated = frozenset(settings["propagate_unmatched_extensions"].replace(",", " ").split())
        default_type = settings["default_database_type"] or "hash"

        def tables(name: str) -> TableList:
            return TableList(settings[name], asker, default_type=default_type, only_srs=own_tables)

        def canonical(who: str) -> list[TableList]:
            names = [f"{who}_canonical", "canonical"]
            return [
                tables(f"{name}_maps") for name in names if f"envelope_{who}" in settings[f"{name}_classes"]
            ]

        self._canonical = canonical("recipient")
        self._sender_canonical = canonical("sender")
        self._bcc = tables("recipient_bcc_maps")
        self._sender_bcc = tables("sender_bcc_maps")
        self._always_bcc = settings["always_bcc"].encode(errors="surrogateescape")
        self._virtual = tables("virtual_alias_maps")
        self._aliases = tables("alias_maps")
        self._transports = tables("transport_maps")
        self._origin = settings["myorigin"].encode()
        with_parents = settings["parent_domain_matches_subdomains"]
        self._transport_parents = "transport_maps" not in with_parents
        self._own = DomainList(settings["mydestination"], asker)
        self._alias_domains = DomainList(settings["virtual_alias_domains"], asker)
        self._mailbox_domains = DomainList(settings["virtual_mailbox_domains"], asker)
        parents = Parents.ALL if "relay_domains" in with_parents else Parents.DOTTED
        self._relay_domains = DomainList(settings["relay_domains"], asker, parents)

    async def follow(self, recipient: bytes) -> Walked:
        """Follow a recipient, as `a@b` or `a`, until an address leaves this host.

        Raises LookupFailedError where a table could not be asked, or where aliases have no end.
        """
        return await _Walk(self).run(recipient)

    @property
    def has_copies(self) -> bool:
        """Tell whether there are copies that no recipient is the cause of."""
        return bool(self._always_bcc or self._sender_bcc)

    @property
    def has_copies_by_sender(self) -> bool:
        """Tell whether such copies depend on the sender."""
        return bool(self._sender_bcc)

    async def follow_copies(self, sender: bytes) -> Walked:
        """Follow the copies of what a sender sends, whoever gets it. Raises as follow() does."""
        return await _Walk(self).run_copies(sender)

    def address(self, text: bytes) -> _Address:
        """Bring an address in internal form to the form that Postfix goes by."""
        local_part, at, domain = text.rpartition(b"@")
        settings = self._settings
        if not at:
            local_part, domain = text, self._origin
        elif (
            b"." not in domain and not domain.startswith(b"[") and settings.yes("append_dot_mydomain")
        ):  # as `bob@mail` within a domain
            domain += b"." + settings["mydomain"].encode()
        return _Address(local_part, domain.removesuffix(b"."))

    async def is_own(self, domain: bytes) -> bool:
        """Tell whether a domain is one of local(8)."""
        if domain.startswith(b"["):
            return self._is_own_literal(domain)
        return await self._own.matches(domain.decode(errors="surrogateescape").lower())

    def _is_own_literal(self, domain: bytes) -> bool:
        text = domain.strip(b"[]").decode(errors="replace").lower().removeprefix("ipv6:")
        try:
            address = ip_address(text)
        except ValueError:
            return False
        listed = f"{self._settings['inet_interfaces']} {self._settings['proxy_interfaces']}"
        return address.is_loopback or text in listed.replace(",", " ").split()

    def keys(self, address: _Address, *, local: bool) -> list[Key]:
        """Give the keys of an address, in the order of virtual(5)."""
        return keys_of(*address, self._delimiters, local=local, owner_request_special=self._owners)

    async def _has_short_keys(self, address: _Address) -> bool:
        return address.domain.lower() == self._origin.lower() or await self.is_own(address.domain)

    async def look_up(self, tables: TableList, address: _Address, purpose: str) -> list[_Address] | None:
        """Look an address up in canonical or virtual alias maps; None where it is not there."""
        if not tables:
            return None
        keys = self.keys(address, local=await self._has_short_keys(address))
        found = await tables.find(keys, is_srs=is_srs(address.local_part))
        if found is None:
            return None
        extension = found.key.extension
        if found.value.startswith(b"@"):  # another domain for the same user
            user = address.local_part
            user = user[: len(user) - len(extension) - 1] if extension else user
            results = [_Address(user, found.value[1:])]
        else:
            results = [self.address(item) for item in parse_list(found.value)]
        if not results:
            raise LookupFailedError(f"{found.table}: no address in the answer for {loggable(found.key.text)}")
        if extension and purpose in self._propagated:
            delimiter = self._delimiters[:1]
            results = [_Address(each.local_part + delimiter + extension, each.domain) for each in results]
        return results

    async def canonical(self, address: _Address, *, sender: bool = False) -> _Address:
        """Apply the canonical maps to a recipient, or to a sender, as cleanup(8) does."""
        for tables in self._sender_canonical if sender else self._canonical:
            for _ in range(CANONICAL_DEPTH_MAXIMUM):
                results = await self.look_up(tables, address, "canonical")
                if not results or results[0].folded == address.folded:
                    break
                address = results[0]
        return address

    async def bcc(self, address: _Address) -> _Address | None:
        """Tell who gets a copy of what is sent to a recipient."""
        results = await self.look_up(self._bcc, address, "")
        return results[0] if results else None

    async def sender_bcc(self, sender: _Address) -> _Address | None:
        """Tell who gets a copy of what a sender sends, the one that cleanup(8) knew before any milter."""
        if not self._sender_bcc:
            return None
        address = await self.canonical(sender, sender=True)
        results = await self.look_up(self._sender_bcc, address, "")
        return results[0] if results else None

    def always_bcc(self) -> _Address | None:
        """Tell who gets a copy of everything."""
        items = parse_list(self._always_bcc)
        return self.address(items[0]) if items else None

    async def virtual(self, address: _Address) -> list[_Address]:
        """Apply the virtual alias maps as cleanup(8) does: again until an address stands for itself."""
        settings = self._settings
        depth_maximum = settings.number("virtual_alias_recursion_limit", 1000)
        maximum = settings.number("virtual_alias_expansion_limit", 1000)
        results, done = [(address, 0)], set()
        place = 0
        while place < len(results):
            present, depth = results[place]
            if len(results) > maximum or depth >= depth_maximum:
                raise LookupFailedError(f"virtual_alias_maps: no end for {loggable(spell(*address))}")
            found = None
            if present.folded not in done:
                found = await self.look_up(self._virtual, present, "virtual")
            if not found:
                place += 1
                continue
            if present.folded in [each.folded for each in found]:
                done.add(present.folded)
            results[place] = (found[0], depth + 1)
            results += [(each, depth + 1) for each in found[1:]]
        return [address for address, _ in results]

    async def kind(self, domain: bytes) -> _Kind:
        """Find the class of a domain, as trivial-rewrite(8) does."""
        if await self.is_own(domain):
            return _Kind.LOCAL
        folded = domain.decode(errors="surrogateescape").lower()
        if await self._alias_domains.matches(folded):
            return _Kind.ALIAS
        if await self._mailbox_domains.matches(folded):
            return _Kind.MAILBOX
        return _Kind.RELAY if await self._relay_domains.matches(folded) else _Kind.OTHER

    async def agent(self, address: _Address, kind: _Kind) -> str:
        """Find the program that delivers to an address: smtp, local, virtual, lmtp, pipe, error, ..."""
        transport = await self._mapped_transport(address)
        if not transport and kind is not _Kind.ALIAS:
            transport = self._settings[kind.value].partition(":")[0]
        return self._settings.agents.get(transport, transport) or "error"

    async def _mapped_transport(self, address: _Address) -> str:
        if not self._transports:
            return ""
        keys = [key for key in self.keys(address, local=False) if not key.text.startswith(b"@")]
        folded = address.domain.lower()
        keys.append(Key(folded, partial=True))
        parent = folded.partition(b".")[2]
        while parent:
            keys.append(Key(b"." + parent if self._transport_parents else parent, partial=True))
            parent = parent.partition(b".")[2]
        keys.append(Key(b"*", partial=True))
        found = await self._transports.find(keys)
        return found.value.decode(errors="replace").partition(":")[0].strip() if found is not None else ""

    def leaves(self, kind: _Kind, agent: str) -> bool:
        """Tell whether mail leaves this host."""
        return agent == _SMTP and (kind is _Kind.OTHER or not self._relayed_stays)

    async def alias(self, item: _Item) -> tuple[bytes, bytes, bytes] | None:
        """Find the alias of a local user: its name, its value, and the extension that did not count."""
        local_part = item.address.local_part.lower()
        user, extension = split_extension(local_part, self._delimiters, owner_request_special=self._owners)
        names = [local_part, user] if extension and b"/" not in extension else [user]
        names = [name for name in names if name != item.within]  # an alias for itself is the user
        found = await self._aliases.find([Key(name, partial=False) for name in names]) if names else None
        if found is None:
            return None
        name = found.key.text
        unmatched = extension if name != local_part and "alias" in self._propagated else b""
        return name, found.value, unmatched

    async def is_owned(self, name: bytes, *, owned: bool) -> bool:
        """Tell whether mail to an alias is sent on in the name of its owner, not of its sender."""
        if self._owners and await self._aliases.find([Key(b"owner-" + name, partial=False)]):
            return True
        return owned and not self._settings.yes("reset_owner_alias")

    async def items(self, value: bytes, depth: int = 0) -> list[tuple[bytes, bool]]:
        """Give what an alias has: its items, and whether each came out of an :include: file."""
        items: list[tuple[bytes, bool]] = []
        for item in parse_list(value):
            if not item.lower().startswith(b":include:"):
                items.append((item, depth > 0))
                continue
            if depth >= LOCAL_DEPTH_MAXIMUM:
                raise LookupFailedError("alias_maps: :include: files nest without end")
            path = item[len(b":include:") :].decode(errors="surrogateescape")
            for line in (await self._asker.read(path)).splitlines():
                if not line.startswith(b"#"):
                    items += await self.items(line, depth + 1)
        return items

    def extend(self, address: _Address, extension: bytes) -> _Address:
        """Put an extension into an address."""
        if not extension:
            return address
        return _Address(address.local_part + self._delimiters[:1] + extension, address.domain)


class _Walk:
    """One recipient on its way."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._items: deque[_Item] = deque()
        self._seen: set[tuple[object, ...]] = set()
        self._steps: list[str] = []
        self._kinds: dict[bytes, _Kind] = {}

    async def run(self, recipient: bytes) -> Walked:
        routes = self._routes
        address = await routes.canonical(routes.address(recipient))
        self._add(_Item(address))
        copy = await routes.bcc(address)
        if copy is not None:
            self._tell(address, [copy], "recipient_bcc_maps")
            await self._add_copy(copy)
        return await self._follow()

    async def run_copies(self, sender: bytes) -> Walked:
        routes = self._routes
        address = routes.address(sender)
        copy = await routes.sender_bcc(address)
        if copy is not None:
            self._tell(address, [copy], "sender_bcc_maps")
            await self._add_copy(copy)
        copy = routes.always_bcc()
        if copy is not None:
            self._note(f"a copy for {_shown(copy)} (always_bcc)")
            await self._add_copy(copy)
        return await self._follow()

    async def _add_copy(self, copy: _Address) -> None:
        """Take the recipient of a copy in: the canonical maps hold for it, too."""
        self._add(_Item(await self._routes.canonical(copy)))

    async def _follow(self) -> Walked:
        leaves = b""
        while self._items and not leaves:
            item = self._items.popleft()
            leaves = await (self._at_local(item) if item.local else self._at_cleanup(item))
        return Walked(leaves, tuple(self._steps))

    def _add(self, item: _Item) -> None:
        key = (item.address.folded, item.within, item.local, item.owned, item.included)
        if key in self._seen:
            return
        if len(self._seen) >= ADDRESSES_MAXIMUM:
            raise LookupFailedError(f"aliases lead to more than {ADDRESSES_MAXIMUM} addresses")
        self._seen.add(key)
        self._items.append(item)

    async def _kind(self, domain: bytes) -> _Kind:
        folded = fold_domain(domain) or domain
        if folded not in self._kinds:
            self._kinds[folded] = await self._routes.kind(domain)
        return self._kinds[folded]

    async def _at_cleanup(self, item: _Item) -> bytes:
        """Have an address expanded by cleanup(8), and see where each result goes; gives what leaves."""
        routes = self._routes
        address = item.address if not item.depth else await routes.canonical(item.address)
        results = await routes.virtual(address)
        if [each.folded for each in results] != [item.address.folded]:
            self._tell(item.address, results, "virtual_alias_maps")
        for each in results:
            kind = await self._kind(each.domain)
            agent = await routes.agent(each, kind)
            if agent == _LOCAL:
                self._add(item._replace(address=each, local=True, within=b"", included=False))
            elif not routes.leaves(kind, agent):
                self._note(f"{_shown(each)} stays here: {_why_it_stays(kind, agent)}")
            elif item.owned:
                self._note(f"{_shown(each)} leaves, but in the name of the list's owner")
            else:
                self._note(f"{_shown(each)} leaves this host")
                return spell(*each)
        return b""

    async def _at_local(self, item: _Item) -> bytes:
        """Have an address expanded by local(8)."""
        routes = self._routes
        alias = await routes.alias(item)
        if alias is None:
            if item.owned or item.included:  # local(8) hands it to cleanup(8) as a message of its own
                self._add(item._replace(local=False, included=False, depth=item.depth + 1))
            else:
                self._note(f"{_shown(item.address)} stays here: a local user")
            return b""
        if item.depth >= LOCAL_DEPTH_MAXIMUM:
            raise LookupFailedError(f"alias_maps: no end for {_shown(item.address)}")
        name, value, extension = alias
        owned = await routes.is_owned(name, owned=item.owned)
        self._note(f"{_shown(item.address)} -> {_cut(value)} (alias_maps)")
        for text, included in await routes.items(value):
            if text[:1] in (b"/", b"~", b"|"):
                self._note(f"{_cut(text)} stays here: {'a command' if text[:1] == b'|' else 'a file'}")
                continue
            address = routes.extend(routes.address(text), extension)
            kind = await self._kind(address.domain)
            local = await routes.agent(address, kind) == _LOCAL
            within = name if local else b""
            self._add(_Item(address, within, local, owned, included and local, item.depth + 1))
        return b""

    def _tell(self, address: _Address, results: Sequence[_Address], source: str) -> None:
        self._note(f"{_shown(address)} -> {_cut(b', '.join([spell(*each) for each in results]))} ({source})")

    def _note(self, step: str) -> None:
        if len(self._steps) < STEPS_MAXIMUM:
            self._steps.append(step)


def _why_it_stays(kind: _Kind, agent: str) -> str:
    match kind:
        case _Kind.ALIAS:
            return "an address of virtual_alias_domains that leads nowhere"
        case _Kind.MAILBOX:
            return "virtual_mailbox_domains"
        case _Kind.RELAY | _Kind.LOCAL if agent == _SMTP:
            return 'srs.relayed = "stays"'
        case _:
            return f"delivered by {agent}"


def _shown(address: _Address) -> str:
    return _cut(spell(*address))


def _cut(text: bytes) -> str:
    return loggable(text if len(text) <= _SHOWN_MAXIMUM else text[:_SHOWN_MAXIMUM] + b"...")
