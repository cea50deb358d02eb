"""DKIM signatures of a message, verified now: what failed, and what has probably been done to the message."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from srsd.daemon.log import printable
from srsd.dkim.canonicalization import BodyHashes
from srsd.dkim.changes import excerpt
from srsd.dkim.diagnosis import Examiner, read_regardless_of_time
from srsd.dkim.header_fields import field_name
from srsd.dkim.result import DkimResult, Reason, Result
from srsd.dkim.signature import FIELD_NAME, Signature
from srsd.dkim.verify import SIGNATURES_MAXIMUM, plan_verification
from srsd.filter.authenticate import ask_for_keys
from srsd.syntax.header import unfold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srsd.cli.dns_answers import KeptAnswers
    from srsd.cli.mail import Mail
    from srsd.config import Config
    from srsd.dkim.changes import Change
    from srsd.dkim.diagnosis import Diagnosis
    from srsd.resolving import Answer
    from srsd.syntax.header import HeaderField

_NAMES_MAXIMUM = 100  # of h=, that are shown
_OF_TIME = (Reason.EXPIRED, Reason.FROM_THE_FUTURE)
_OF_MESSAGE = (Reason.BODY_CHANGED, Reason.HEADER_CHANGED, Reason.BODY_TOO_SHORT)
# What is to be said where no change of the message is the cause.
_ADVICE = {
    Reason.NO_KEY: "DNS has no key there: it was never published, has been taken away since, or s= is wrong",
    Reason.KEY_UNAVAILABLE: "DNS gave no answer, so nothing is known of the key: try again later",
    Reason.SEVERAL_KEYS: "the owner of the domain has to leave one TXT record at that name",
    Reason.KEY_MALFORMED: "the owner of the domain has to publish the key anew: it cannot be read",
    Reason.KEY_UNUSABLE: "the owner of the domain has to publish the key anew: it is damaged",
    Reason.KEY_REVOKED: "the owner of the domain has withdrawn the key (an empty p=)",
    Reason.KEY_TOO_SHORT: "the owner of the domain has to sign with a longer key: 2048 bits",
    Reason.KEY_BELOW_MINIMUM: "dkim.minimum_key_bits is above the size of the key",
    Reason.KEY_TYPE: "the key at that selector is of another algorithm than a= says",
    Reason.FROM_THE_FUTURE: "the clock of the signer is wrong, or the one here",
    Reason.BODY_NOT_SIGNED: "the signer uses l=, and what follows was not signed: anybody may have added it",
    Reason.SECOND_FROM: "there are more From fields than were signed: an attack, or a broken sender",
    Reason.BODY_TOO_SHORT: "the end of the body has been cut off",
    Reason.HISTORIC_ALGORITHM: "the signer has to change to rsa-sha256: RFC 8301 forbids rsa-sha1",
}


async def check_signatures(
    mail: Mail, config: Config, answers: KeptAnswers
) -> tuple[list[DkimResult], dict[str, Any]]:
    """Verify all signatures as the milter does; gives the results, and all about them for JSON."""
    results, not_examined, keys = await verify(mail, config, answers)
    examiner = Examiner(mail.fields, mail.body)
    signatures = []
    for number, (field, result) in enumerate(zip(signature_fields(mail), results, strict=True), 1):
        _, signature = read_regardless_of_time(field.value)
        key = keys.get(signature.key_name) if isinstance(signature, Signature) else None
        search = result.reason in (*_OF_TIME, *_OF_MESSAGE)
        diagnosis = examiner.examine(field, key, search=search)
        signatures.append({"number": number, **_describe(result, diagnosis, mail)})
    return results, {
        "signatures": signatures,
        "not_examined": not_examined,
        "passed": sum(result.result is Result.PASS for result in results),
    }


def signature_fields(mail: Mail) -> list[HeaderField]:
    """Give the signatures that are looked at, from the top."""
    return [field for field in mail.fields if field_name(field) == FIELD_NAME][:SIGNATURES_MAXIMUM]


async def verify(
    mail: Mail, config: Config, answers: KeptAnswers
) -> tuple[list[DkimResult], int, dict[bytes, Answer[bytes]]]:
    """Verify: the results, how many more signatures there are, and the keys, those of expired ones too."""
    plan = plan_verification(mail.fields, answers.now, config.dkim)
    hashes = BodyHashes(plan.body_hashes)
    hashes.feed(mail.body)
    names = dict.fromkeys(plan.key_names)
    for field in signature_fields(mail):
        _, signature = read_regardless_of_time(field.value)
        if isinstance(signature, Signature):
            names[signature.key_name] = None
    keys = await ask_for_keys(names, answers)
    return plan.finish(keys, hashes.finish()), plan.not_examined, keys


def _describe(result: DkimResult, diagnosis: Diagnosis, mail: Mail) -> dict[str, Any]:
    signature = diagnosis.signature
    described: dict[str, Any] = {
        "result": result.result.value,
        "reason": result.phrase,
        "domain": printable(result.domain),
        "selector": printable(result.selector),
        "algorithm": printable(result.algorithm),
        "identity": printable(result.identity),
        "signature_start": printable(result.signature_start),
        "key_name": printable(signature.key_name) if signature else None,
        "key_bits": result.key_bits or None,
        "key_authenticated": result.key_authenticated,
        "testing": result.testing,
        "signed": _date(diagnosis.times.get("t")),
        "expires": _date(diagnosis.times.get("x")),
        "canonicalization": None,
        "signed_fields": [printable(name) for name in signature.signed_fields] if signature else [],
        "header_intact": diagnosis.header_intact,
        "body_intact": diagnosis.body_intact,
    }
    if signature:
        body = signature.body_hash_key.canonicalization
        described["canonicalization"] = f"{signature.header_canonicalization.decode()}/{body.decode()}"
    failed = result.result is not Result.PASS
    described["why"] = [*_why(result, diagnosis)] if failed else []
    described["likely_cause"] = _likely_cause(result, diagnosis, mail) if failed else None
    return described


def _date(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"{seconds} seconds after 1970"


def _why(result: DkimResult, diagnosis: Diagnosis) -> Iterator[str]:
    """Say what is known for certain, beyond the result itself."""
    signature, times = diagnosis.signature, diagnosis.times
    if result.reason is Reason.EXPIRED:
        yield f"expired at {_date(times.get('x'))}"
    if signature is None:
        return
    if result.reason not in _OF_MESSAGE and result.reason not in _OF_TIME:
        if diagnosis.header_intact is None:
            yield f"the key would be the TXT record of {printable(signature.key_name)}"
            yield "the header cannot be judged without the key"
        if diagnosis.body_intact:
            yield "the body is as it was signed"
    if diagnosis.header_intact and not diagnosis.body_intact:
        yield "the header is as it was signed, so the key is right"
    if diagnosis.body_intact is False:
        yield "the body has been changed since: it has another hash than bh= says"
    if diagnosis.header_intact is False:
        yield from _why_header(diagnosis, signature)
    for name, was, here in diagnosis.copies_differ:
        now = f"is {_text(here)}" if here else "is not there"
        yield f"z= of the signature says that {printable(name)} was {_text(was)}; it {now}"


def _why_header(diagnosis: Diagnosis, signature: Signature) -> Iterator[str]:
    if diagnosis.body_intact:
        yield "the body is as it was signed"
    if diagnosis.header_changes is not None:
        yield "the header has been changed since, and the key is right"
        return
    names = ", ".join(dict.fromkeys(printable(name) for name in signature.signed_fields[:_NAMES_MAXIMUM]))
    yield f"one of the signed fields has been changed, or the key is not the signer's: {names}"
    if diagnosis.missing:
        absent = ", ".join(printable(name) for name in diagnosis.missing[:_NAMES_MAXIMUM])
        yield f"signed, but not there, so signed as absent or taken away since: {absent}"


def _text(value: bytes) -> str:
    return f'"{printable(excerpt(unfold(value)))}"'


def _likely_cause(result: DkimResult, diagnosis: Diagnosis, mail: Mail) -> dict[str, Any]:
    """Name the likely cause; proved is what the signature itself proves: undone, it verifies."""
    changes = [*(diagnosis.body_changes or []), *(diagnosis.header_changes or [])]
    proved = not (diagnosis.body_intact is False and diagnosis.body_changes is None) and not (
        diagnosis.header_intact is False and diagnosis.header_changes is None
    )
    sentences = [*_sentences(result, diagnosis, mail, changes)]
    return {
        "text": "; ".join(sentences) or result.phrase,
        "proved": bool(changes) and proved and diagnosis.header_intact is not None,
        "changes": [
            {"cause": each.cause.name.lower(), "text": each.cause.value, "detail": printable(each.detail)}
            for each in changes
        ],
        "tries": diagnosis.tries,
    }


def _sentences(result: DkimResult, diagnosis: Diagnosis, mail: Mail, changes: list[Change]) -> Iterator[str]:
    if result.reason is Reason.EXPIRED:
        intact = diagnosis.header_intact and diagnosis.body_intact
        yield "the message is older than its signature is good for" + (
            ", and is otherwise as it was signed" if intact else ""
        )
    elif result.reason in _ADVICE:
        yield _ADVICE[result.reason]
    for change in changes:
        yield change.cause.value + (f" ({printable(change.detail)})" if change.detail else "")
    if result.reason not in (*_OF_MESSAGE, *_OF_TIME):
        return
    if diagnosis.body_intact is False and diagnosis.body_changes is None:
        yield "the body was changed in a way that is none of the usual ones"
    if diagnosis.header_intact is False and diagnosis.header_changes is None:
        yield (
            "the header was changed in a way that is none of the usual ones, "
            "or the key in DNS is not the one that signed"
        )
    found = None not in (diagnosis.body_changes, diagnosis.header_changes) or changes
    if not found and (diagnosis.body_intact is False or diagnosis.header_intact is False):
        yield from _hints(mail)


def _hints(mail: Mail) -> Iterator[str]:
    """Name who may have changed a message, where nothing is proved."""
    if mail.values(b"list-id") or mail.values(b"list-post"):
        yield "it came through a mailing list, and those change messages"
    if mail.values(b"x-spam-flag") or mail.values(b"x-virus-scanned"):
        yield "a scanner looked at it, and some change messages"
