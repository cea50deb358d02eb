"""Reads the text of a configuration: gives a Config, or every fault in the text at once."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

from cattrs import ClassValidationError, Converter
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from srsd.config import Config, Workers
from srsd.config_checks import contradictions, without_effect
from srsd.errors import ConfigError, Fault
from srsd.lookup import DomainFor
from srsd.syntax.endpoint import Endpoint, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from cattrs.dispatch import StructureHook


def parse_config(text: bytes) -> tuple[Config, list[Fault]]:
    """Read a configuration. Gives it with remarks: keys that have no effect, given the others.

    Raises ConfigError with every fault.
    """
    try:
        raw = tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(
            [Fault("", f"byte {error.start} is not UTF-8, would be right: UTF-8 text")]
        ) from None
    except (ValueError, RecursionError) as error:  # the second by thousands of brackets
        raise ConfigError([Fault("", f"is not TOML: {error}, would be right: key = value")]) from None
    faults: list[Fault] = []
    config = _structure(raw, faults)
    faults += contradictions(config, {fault.where for fault in faults})
    if faults:
        raise ConfigError(faults)
    return config, list(without_effect(config))


def _structure(raw: dict[str, Any], faults: list[Fault]) -> Config:
    """Make a Config of parsed TOML; faulty keys are noted and dropped, so that the rest can be checked."""
    while True:
        try:
            return _CONVERTER.structure(raw, Config)
        except ClassValidationError as error:
            for path, problem in _problems(error, Config):
                faults.append(Fault(".".join(path), problem))
                table = raw
                for name in path[:-1]:
                    table = table[name]
                del table[path[-1]]


def _problems(error: ClassValidationError, cls: type) -> list[tuple[tuple[str, ...], str]]:
    """Flatten cattrs' tree of exceptions: the path of each faulty key, and what is wrong with it."""
    found: list[tuple[tuple[str, ...], str]] = []
    noted, others = error.group_exceptions()
    for problem in others:
        if isinstance(problem, ForbiddenExtraKeysError):
            found += [((name,), _unknown(name, cls)) for name in sorted(problem.extra_fields)]
        else:
            raise problem
    for problem, note in noted:
        if isinstance(problem, ClassValidationError):
            inner = _problems(problem, get_type_hints(cls)[note.name])
            found += [((note.name, *path), text) for path, text in inner]
        else:
            found.append(((note.name,), str(problem)))
    return found


def _unknown(name: str, cls: type) -> str:
    known = [item.name for item in fields(cls)]
    near = difflib.get_close_matches(name, known, 1, cutoff=0) if known else []
    return f"is not a known key, would be right: {near[0] if near else 'none'} is the nearest"


def _shown(value: object) -> str:
    """Show a value as TOML would."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _strictly(right: str, *types: type) -> StructureHook:
    """Make a hook that takes values of just these types: TOML tells 1, 1.0, "1" and true apart."""

    def hook(value: Any, _: Any) -> Any:
        if type(value) in types:
            return value
        raise ValueError(f"is {_shown(value)}, would be right: {right}")

    return hook


def _structure_strings(value: Any, _: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f'is {_shown(value)}, would be right: a list of texts such as ["one", "two"]')


def _structure_endpoints(value: Any, _: Any) -> tuple[Endpoint, ...]:
    return tuple(parse_endpoint(item) for item in _structure_strings(value, None))


def _structure_domains_for(value: Any, _: Any) -> tuple[DomainFor, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"is {_shown(value)}, would be right: tables [[srs.domain_for]]")
    structured = []
    for number, item in enumerate(value, 1):
        for name in ("domains", "domain"):
            if name not in item:
                raise ValueError(f"table {number} has no {name}, would be right: domains and domain in each")
        try:
            structured.append(_CONVERTER.structure(item, DomainFor))
        except ClassValidationError as error:
            (path, problem), *_ = _problems(error, DomainFor)
            raise ValueError(f"{'.'.join(path)} of table {number} {problem}") from None
    return tuple(structured)


def _structure_workers(value: Any, _: Any) -> Workers:
    if value == "auto" or (type(value) is int and 1 <= value <= 1024):
        return cast("Workers", value)
    raise ValueError(f'is {_shown(value)}, would be right: a whole number from 1 to 1024, or "auto"')


def _structure_choice(value: Any, literal: Any) -> Any:
    words = get_args(literal)
    if isinstance(value, str) and value in words:
        return value
    raise ValueError(f"is {_shown(value)}, would be right: one of {', '.join(words)}")


def _section_hook(cls: type) -> StructureHook:
    """Make the hook for a dataclass: unknown keys are errors, each field has its type and its check."""
    types = get_type_hints(cls)
    overrides: dict[str, Any] = {
        item.name: override(struct_hook=_field_hook(types[item.name], item.metadata.get("check")))
        for item in fields(cls)
    }
    structure: StructureHook = make_dict_structure_fn(
        cls, _CONVERTER, _cattrs_forbid_extra_keys=True, **overrides
    )

    def hook(value: Any, target: Any) -> Any:
        if isinstance(value, dict):
            return structure(value, target)
        raise ValueError(f"is {_shown(value)}, would be right: a table [{cls.__name__.lower()}]")

    return hook


def _field_hook(kind: Any, check: Callable[[Any], str | None] | None) -> StructureHook:
    def hook(value: Any, _: Any) -> Any:
        structured = _CONVERTER.structure(value, kind)
        problem = check(structured) if check else None
        if problem:
            raise ValueError(problem)
        return structured

    return hook


def _is_choice(kind: Any) -> bool:
    origin: object = get_origin(kind)
    return origin is Literal


def _make_converter() -> Converter:
    converter = Converter()
    converter.register_structure_hook(str, _strictly('a text in quotes, such as "text"', str))
    converter.register_structure_hook(bool, _strictly("true or false", bool))
    converter.register_structure_hook(int, _strictly("a whole number", int))
    converter.register_structure_hook(float, _strictly("a number", int, float))
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _structure_strings)
    converter.register_structure_hook_func(lambda kind: kind == tuple[Endpoint, ...], _structure_endpoints)
    converter.register_structure_hook_func(lambda kind: kind == tuple[DomainFor, ...], _structure_domains_for)
    converter.register_structure_hook_func(lambda kind: kind == Workers, _structure_workers)
    converter.register_structure_hook_func(_is_choice, _structure_choice)
    converter.register_structure_hook_factory(is_dataclass, _section_hook)
    return converter


_CONVERTER = _make_converter()
