"""The native CPU kernel for tiny models: built at first use, optional, and equal to the torch path within rounding."""

from procpre_interp.train.native.build import KernelUnavailable
from procpre_interp.train.native.step import NativeStep, is_compiled, library_name, why_not

VERSION = 2
"""Raised when the kernel's numbers change, in their last bits too: part of the identity of a run that it computed."""

__all__ = ["VERSION", "KernelUnavailable", "NativeStep", "is_compiled", "library_name", "why_not"]
