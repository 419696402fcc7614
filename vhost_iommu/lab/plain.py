# SPDX-License-Identifier: Apache-2.0
"""Typed values as what JSON holds, and back again: for the control socket, ``--json`` and dumps.

Law: ``restored(type(value), plain(value)) == value`` for dataclasses, named tuples, enumerations
and plain values. Nothing but values is ever made of what is read.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..layout import Layout

T = TypeVar("T")


def plain(value: Any) -> Any:
    """``value`` of dictionaries, lists, strings and numbers."""
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Layout):
        return shown(value)
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(each) for name, each in zip(value._fields, value, strict=True)}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(each) for each in value]
    raise TypeError(f"{type(value).__name__} is no plain value")


def shown(value: Layout) -> dict[str, Any]:
    """A structure, decoded by its codec: its words, and each field that is not zero."""
    return {
        "kind": type(value).__name__,
        "words": [f"{word:#018x}" for word in value.words()],
        "fields": {name: each for name, each in value.shown().items() if each},
        "text": value.text(),
        "problems": value.problems(),
    }


class MisfitError(ValueError):
    """What was read is no value of the type that it should be."""


def restored(kind: type[T], data: Any) -> T:
    """The value of type ``kind`` that ``plain`` made ``data`` of; MisfitError where it is none."""
    return typing.cast(T, _restored(kind, data))


def _restored(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (inner,) = (each for each in arguments if each is not type(None))
        return _restored(inner, data)
    if origin is tuple:
        if not isinstance(data, list):
            raise MisfitError(f"{data!r:.80} is no list")
        if len(arguments) == 2 and arguments[1] is ...:
            return tuple(_restored(arguments[0], each) for each in data)
        if len(arguments) != len(data):
            raise MisfitError(f"{data!r:.80} has not {len(arguments)} elements")
        return tuple(_restored(each, item) for each, item in zip(arguments, data, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise MisfitError(f"{data!r:.80} is no object")
        return {_restored(arguments[0], key): _restored(arguments[1], each) for key, each in data.items()}
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return _restored(int, data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        if not isinstance(data, str) or data not in kind.__members__:
            raise MisfitError(f"{data!r:.80} is no {kind.__name__}")
        return kind[data]
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        return _made(kind, data)
    # A number may be a truth value's, and only there.
    fits = type(data) is kind or (kind is float and type(data) is int)
    if kind not in (int, float, str, bool) or not fits:
        raise MisfitError(f"{data!r:.80} is no {getattr(kind, '__name__', kind)}")
    return data


def _made(kind: Any, data: Any) -> Any:
    if not isinstance(data, dict):
        raise MisfitError(f"{data!r:.80} is no {kind.__name__}")
    hints = get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        names = [each.name for each in dataclasses.fields(kind) if each.init]
    else:
        names = list(kind._fields)
    missing = [name for name in names if name not in data]
    if missing:
        raise MisfitError(f"{kind.__name__} has no {missing[0]}")
    return kind(**{name: _restored(hints[name], data[name]) for name in names})
