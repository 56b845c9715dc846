"""Every annotation of a package checked at run time: those of arrays by jaxtyping with beartype, others by beartype.

jaxtyping compares the axes of all arguments and of the result of a function, and binds the arguments for that at each
call, which took a third of this suite's time. Where no annotation has an array there is nothing to compare.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

WITH_AXES = jaxtyping.jaxtyped
PLAIN = beartype(conf=BeartypeConf(violation_type=TypeError))  # which jaxtyping's own error is, too


def check_annotations(package: str) -> None:
    """Check those of all modules of a package that are imported from now on."""
    jaxtyping.jaxtyped = checked  # by this name the hook decorates all functions and classes
    install_import_hook(package, "beartype.beartype")


def checked(fn: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Decorate a function or a class as jaxtyping does, or by beartype alone where it has no arrays."""
    if fn is None:
        return lambda fn: checked(fn, typechecker=typechecker)
    if not inspect.isclass(fn):
        return WITH_AXES(fn, typechecker=typechecker) if _has_arrays(fn) else PLAIN(fn)
    if not dataclasses.is_dataclass(fn) or _has_arrays(fn.__init__):
        return WITH_AXES(fn, typechecker=typechecker)
    if "__init__" in vars(fn):
        fn.__init__ = PLAIN(fn.__init__)
    return fn


def _has_arrays(fn: Any) -> bool:
    return any(_is_of_arrays(hint) for hint in inspect.get_annotations(fn).values())


def _is_of_arrays(hint: Any) -> bool:
    """Whether an annotation names an array. One given as text may, and jaxtyping knows how to read it."""
    if isinstance(hint, str) or (inspect.isclass(hint) and issubclass(hint, AbstractArray)):
        return True
    return any(map(_is_of_arrays, hint if isinstance(hint, list) else get_args(hint)))
