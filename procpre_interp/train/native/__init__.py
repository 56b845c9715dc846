"""The native CPU kernel for tiny models: built at first use, optional, and equal to the torch path within rounding."""

from procpre_interp.train.native.build import KernelUnavailable
from procpre_interp.train.native.step import NativeStep, is_compiled, why_not

__all__ = ["KernelUnavailable", "NativeStep", "is_compiled", "why_not"]
