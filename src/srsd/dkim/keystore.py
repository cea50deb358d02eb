"""Our keys by domain: what DOMAIN/SELECTOR.pem and DOMAIN/active say, and so who signs for an author.

Only texts come in here. A key that was read once is kept, parsed, by its octets: checking an RSA key takes
tens of milliseconds, and after a change most keys are those of before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from srsd.crypto import load_private_key
from srsd.dkim.sign import Signer
from srsd.errors import ConfigError, Fault
from srsd.syntax.domain import parents, parse_domain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from srsd.crypto import KeyType, PrivateKey

KEY_SUFFIX = ".pem"
ACTIVE = "active"  # the file that lists the selectors that sign
NO_KEY = "no key for the author domain"
_KEYS_KEPT = 8192
_KEY_NAME_MAXIMUM = 253  # octets, RFC 1035 §2.3.4
_KEY_LABEL = b"._domainkey."  # RFC 6376 §3.6.2.1


class KeyChoice(NamedTuple):
    """Who signs a message: nobody, or one Signer for each signature."""

    signers: tuple[Signer, ...]
    reason: str  # why they sign, or why nobody does; printable, nothing in it is the author's


class DomainKeys(NamedTuple):
    """The keys of one domain."""

    domain: bytes  # in A-labels
    path: str  # their directory
    keys: tuple[Signer, ...]  # all of them, by selector
    signing: tuple[Signer, ...]  # those that sign
    reason: str  # why just those
    decides: bool  # there are keys, or a file active: the domains above do not matter
    warning: Fault | None = None


class KeyStore:
    """All keys of the key directory."""

    def __init__(self, domains: Iterable[DomainKeys] = ()) -> None:
        """Take the domains. Raises ConfigError for one that has two directories."""
        self.domains: dict[bytes, DomainKeys] = {}
        faults = []
        for each in domains:
            other = self.domains.setdefault(each.domain, each)
            if other is not each:
                text = f"is the same domain as {other.path}, would be right: one directory with all its keys"
                faults.append(Fault("", text, each.path))
        if faults:
            raise ConfigError(faults)
        self._choices = {
            each.domain: KeyChoice(each.signing, each.reason)
            for each in self.domains.values()
            if each.decides
        }

    def signers_for(self, author_domain: bytes) -> KeyChoice:
        """Say who signs for an author domain from fold_domain: the nearest domain that has keys."""
        choice = self._choices.get(author_domain)
        if choice is not None:
            return choice
        for parent in parents(author_domain):
            choice = self._choices.get(parent)
            if choice is not None:
                return choice
        return KeyChoice((), NO_KEY)

    def find(self, domain: bytes, selector: bytes) -> Signer | None:
        """Give a key by its names in A-labels."""
        found = self.domains.get(domain)
        if found is not None:
            for signer in found.keys:
                if signer.selector == selector:
                    return signer
        return None

    @property
    def warnings(self) -> list[Fault]:
        """What an admin should know."""
        return [each.warning for each in self.domains.values() if each.warning is not None]


def parse_key_store(files: Mapping[str, bytes]) -> KeyStore:
    """Parse the files of the key directory, by path: DIRECTORY/DOMAIN/NAME. Raises ConfigError."""
    directories: dict[str, dict[str, bytes]] = {}
    for path, text in files.items():
        directory, _, name = path.rpartition("/")
        directories.setdefault(directory, {})[name] = text
    domains, faults = [], []
    for directory, texts in directories.items():
        try:
            domains.append(parse_domain_keys(directory, texts))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return KeyStore(domains)


def parse_domain_keys(path: str, files: Mapping[str, bytes]) -> DomainKeys:
    """Parse the files of one domain: path is their directory, files are by name.

    Raises ConfigError with all faults.
    """
    try:
        domain = parse_signing_domain(path.rpartition("/")[2])
    except ValueError as error:
        raise ConfigError([Fault("", str(error), path)]) from None
    faults: list[Fault] = []
    keys: dict[bytes, Signer] = {}
    faulty: set[str] = set()
    for name in sorted(files):
        if name.endswith(KEY_SUFFIX):
            try:
                signer = _parse_key(domain, name, files[name])
            except ValueError as error:
                faulty.add(name.removesuffix(KEY_SUFFIX))
                faults.append(Fault("", str(error), f"{path}/{name}"))
                continue
            other = keys.setdefault(signer.selector, signer)
            if other is not signer:
                problem = f'is another key for the selector "{signer.selector.decode()}"'
                faults.append(Fault("", f"{problem}, would be right: one file", f"{path}/{name}"))
    active = None
    if ACTIVE in files:
        active, problems = _parse_active(files[ACTIVE], keys, faulty)
        faults += (problem._replace(file=f"{path}/{ACTIVE}") for problem in problems)
    if faults:
        raise ConfigError(faults)
    return _decide(domain, path, keys, active)


def parse_signing_domain(text: str) -> bytes:
    """Parse a d=, in A-labels or not; gives A-labels. Raises ValueError."""
    try:
        domain = parse_domain(text)
        if b"." not in domain:  # RFC 6376 §3.5: verifiers take it for malformed
            raise ValueError(f"{text!r} is a top-level domain")
    except ValueError as error:
        raise ValueError(f"{error}, would be right: the domain that signs, such as example.org") from None
    return domain


def parse_selector(text: str) -> bytes:
    """Parse an s=: one label or several (RFC 6376 §3.1). Raises ValueError."""
    try:
        return parse_domain(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a selector, would be right: letters, digits and hyphens") from None


def key_name(domain: bytes, selector: bytes) -> bytes:
    """Give the name in DNS under which a key is found (RFC 6376 §3.6.2.1)."""
    return selector + _KEY_LABEL + domain


def split_key_name(name: str) -> tuple[bytes, bytes] | None:
    """Split the name of a key in DNS into d= and s=; None for what is none."""
    selector, label, domain = name.partition(_KEY_LABEL.decode())
    try:
        return (parse_signing_domain(domain), parse_selector(selector)) if label else None
    except ValueError:
        return None


def make_signer(domain: bytes, selector: bytes, key: PrivateKey) -> Signer | None:
    """Make a Signer; None where DNS could not have such a key."""
    fits = len(selector) + len(_KEY_LABEL) + len(domain) <= _KEY_NAME_MAXIMUM
    return Signer(domain, selector, key) if fits else None


@lru_cache(maxsize=_KEYS_KEPT)
def parse_key(pem: bytes) -> PrivateKey:
    """Parse a private key. Raises ValueError: what is wrong, and what would be right."""
    return load_private_key(pem)


def _parse_key(domain: bytes, name: str, pem: bytes) -> Signer:
    signer = make_signer(domain, parse_selector(name.removesuffix(KEY_SUFFIX)), parse_key(pem))
    if signer is None:
        raise ValueError("has too long a name for DNS, would be right: a shorter selector")
    return signer


def _parse_active(
    text: bytes, keys: Mapping[bytes, Signer], faulty: Collection[str]
) -> tuple[list[Signer], list[Fault]]:
    """Parse a file active: one selector a line; blank lines and comments behind # do not matter.

    Of a key that is faulty itself enough is said already.
    """
    listed: list[Signer] = []
    faults = []
    by_type: dict[KeyType, bytes] = {}
    for number, raw in enumerate(text.split(b"\n"), 1):
        line = raw.partition(b"#")[0].strip().decode(errors="surrogateescape")
        if not line or line in faulty:
            continue
        try:
            signer = keys.get(parse_selector(line))
            if signer is None:
                known = ", ".join(each.decode() for each in keys) or "none"
                raise ValueError(f"there is no key {line!r} here, would be right: one of these: {known}")
            other = by_type.setdefault(signer.key.key_type, signer.selector)
            if other != signer.selector:
                kind = signer.key.key_type.value.decode()
                raise ValueError(f'"{other.decode()}" is an {kind} key too, would be right: one {kind} key')
        except ValueError as error:
            faults.append(Fault(f"line {number}", str(error)))
            continue
        if signer not in listed:
            listed.append(signer)
    return listed, faults


def _decide(
    domain: bytes, path: str, keys: Mapping[bytes, Signer], active: list[Signer] | None
) -> DomainKeys:
    """Decide which keys of a domain sign."""
    in_order = tuple(keys[selector] for selector in sorted(keys))
    if active is not None:
        reason = "listed in the file active" if active else "the file active of its domain lists no key"
        return DomainKeys(domain, path, in_order, tuple(active), reason, decides=True)
    if len(in_order) < 2:
        reason = "the only key of its domain" if in_order else NO_KEY
        return DomainKeys(domain, path, in_order, in_order, reason, decides=bool(in_order))
    first = in_order[0].selector.decode()
    warning = Fault(
        "",
        f'has {len(in_order)} keys and no file {ACTIVE}, so "{first}" signs, the first by name, '
        f"would be right: srsctl dkim activate {domain.decode()} {first}",
        path,
    )
    reason = "the first key of its domain by name"
    return DomainKeys(domain, path, in_order, in_order[:1], reason, decides=True, warning=warning)
