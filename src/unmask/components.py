"""Named parts as data: `{kind: name, option: value}` and a table of names make an object, every option checked.

A kind that is not in the table may be `package.module:Class`, so that a user's own schedule, method or rule needs no
change here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import UserError, nearest

Spec = Mapping[str, Any]
Table = Mapping[str, Callable[..., Any]]


def build(
    table: Table,
    spec: Spec,
    field: str,
    imports: bool = True,
    *,
    parts: Mapping[str, Table] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """`{kind: name, **options}` -> the object; UserError says what is wrong.

    imports: whether a kind may be `package.module:Class`. In a recipe that the user wrote, yes; in the config of a
    model that came from somewhere, no: it would run whatever it names. parts: options that are components themselves,
    and their tables. given: values for fields that the maker may declare, and that are not for the user to set; where
    there are any, a plain function is a component too, as it is.
    """
    options = dict(spec)
    kind = options.pop("kind", None)
    maker = maker_of(table, kind, field, imports, functions=given is not None)
    if inspect.isfunction(maker):
        if options:
            raise UserError(f"{field}.{next(iter(options))}: {kind} has no options; leave it out")
        return maker
    fields = {f.name for f in dataclasses.fields(maker)} if dataclasses.is_dataclass(maker) else set(options)
    known = fields - set(given or ())
    for name, value in options.items():
        if name not in known:
            raise UserError(f"{field}.{name}: {kind} has no such option; {nearest(name, known or {'kind'})}")
        if parts and name in parts:
            inner = {"kind": value} if isinstance(value, str) else value
            options[name] = build(parts[name], inner, f"{field}.{name}", imports, parts=parts)
        elif name in _hints(maker):
            options[name] = _checked(_hints(maker)[name], value, f"{field}.{name}")
    try:
        return maker(**options, **{name: value for name, value in (given or {}).items() if name in fields})
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{field}: {error}") from error


@functools.cache
def _hints(maker: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(maker)


def maker_of(table: Table, kind: Any, field: str, imports: bool, functions: bool = False) -> Callable[..., Any]:
    """What a kind names: the table's entry, or a dataclass (a function too, where allowed) of the user's own."""
    if not isinstance(kind, str):
        raise UserError(f"{field}.kind: {kind!r} is not a name; choose one of {', '.join(sorted(table))}")
    if kind in table:
        return table[kind]
    module, colon, name = kind.partition(":")
    if not colon:
        raise UserError(f"{field}.kind: {kind!r} is unknown; {nearest(kind, table)}")
    if not imports:
        raise UserError(f"{field}.kind: the saved model names code outside unmask, {kind!r}; load it with trust=True")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{field}.kind: {kind!r} cannot be imported ({error}); write package.module:Class") from error
    if not (dataclasses.is_dataclass(found) or (functions and inspect.isfunction(found))):
        raise UserError(f"{field}.kind: {kind!r} is not a dataclass; name a class whose fields are its options")
    return found


def _checked(hint: Any, value: Any, field: str) -> Any:
    """The value as the type that the component's field declares; YAML reads 2e-3 as text, a list as no tuple."""
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{field}={value!r}: {error.errors()[0]['msg'].lower()}") from error
