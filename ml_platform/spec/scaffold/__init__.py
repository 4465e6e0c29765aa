"""A working use case from files of a plain table."""

from ml_platform.spec.scaffold.folder import Scaffolded, scaffold
from ml_platform.spec.scaffold.guessing import Guess, Overrides

__all__ = ["Guess", "Overrides", "Scaffolded", "scaffold"]
