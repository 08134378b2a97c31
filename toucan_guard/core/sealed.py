"""Frozen values that are made quickly.

The constructor of a frozen dataclass sets each field by a call, which takes ten times as long as setting an attribute.
Where a value is made for each token or request, that adds up. ``sealing`` gives such a class a second constructor: it
fills an instance that is open, of a class made for that, whose last step closes it: it gives it its own class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields, make_dataclass
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def sealing(closed: Callable[_P, _T]) -> Callable[_P, _T]:
    """A constructor for a frozen dataclass with slots, of the same arguments.

    What it makes cannot be told from what the class itself makes, but for this: the arguments are taken as they are,
    without ``__post_init__``.
    """
    cls: Any = closed

    def close(made: Any) -> None:
        made.__class__ = cls

    plain: Any = make_dataclass(
        cls.__name__,
        [
            (item.name, Any, field(default=item.default, default_factory=item.default_factory, init=item.init))
            for item in fields(cls)
        ],
        namespace={"__post_init__": close},
        slots=True,
    )
    # The same memory layout: a class that adds nothing to the other's slots (Python's data model, 3.3.2.4).
    opened: Any = type(
        cls.__name__,
        (cls,),
        {
            "__slots__": (),
            "__init__": plain.__init__,
            "__post_init__": close,
            "__setattr__": object.__setattr__,
            "__delattr__": object.__delattr__,
        },
    )
    made: Callable[_P, _T] = opened
    return made
