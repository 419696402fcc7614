# SPDX-License-Identifier: Apache-2.0
"""What is sealed: parts that the compiled core has its own of, or goes past, so that to replace them might do nothing.

Law: whoever assigns to a sealed part, or patches its class where the core would go past it, is told so, and where the
seams are instead. A part costs nothing by it but where it assigns to itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .errors import UsageError

C = TypeVar("C", bound=type)

#: The seams of an SMMU (smmu/seams.py).
SEAMS = ("gate", "memory", "walk", "translation", "acknowledge", "message", "wire", "room", "stalls")


def no_seam(owner: object, name: str) -> UsageError:
    """What to say of an assignment that might have no effect."""
    return UsageError(
        f"{type(owner).__name__}.{name} is no seam, and the compiled core would go past it; "
        f"set one of smmu.seams instead: {', '.join(SEAMS)}, or a port's 'rewrite' (docs/faults.md)"
    )


class Sealed:
    """A part of which nothing but ``OPEN`` is assigned once it is sealed; so no method of it can be replaced."""

    #: What its owner, or itself, assigns while it works.
    OPEN: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if "_sealed" in self.__dict__ and name not in self.OPEN:
            raise no_seam(self, name)
        object.__setattr__(self, name, value)

    def seal(self) -> None:
        """All that it consists of is there, and is sealed as well."""
        if "_sealed" not in self.__dict__:
            self.__dict__["_sealed"] = True
            for part in vars(self).values():
                if isinstance(part, Sealed):
                    part.seal()


def declared(cls: C) -> C:
    """Of a class whose methods the compiled core has its own of: remember them as they are declared."""
    of: Any = cls
    of._declared = {name: method for name, method in vars(cls).items() if callable(method)}
    return cls


def replaced(of: object, base: Any, *names: str) -> bool:
    """Whether a method of ``of``, by its ``names``, is another than ``base`` declares."""
    return any(name in vars(of) or getattr(type(of), name) is not base._declared[name] for name in names)


def refuse_replaced(*classes: Any) -> None:
    """UsageError where a method of a ``declared`` class was replaced, which the compiled core would not call."""
    for each in classes:
        for name, method in each._declared.items():
            if vars(each).get(name) is not method:
                raise UsageError(
                    f"{each.__name__}.{name} was replaced, and the compiled core would go past it; set the seam 'gate' "
                    "or another of Seams instead (docs/faults.md), or make the SMMU with pure=True"
                )
