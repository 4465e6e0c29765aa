"""A working use case from files of a plain table, and the project that it lives in."""

from ml_platform.spec.scaffold.folder import Scaffolded, scaffold
from ml_platform.spec.scaffold.guessing import Guess, Overrides
from ml_platform.spec.scaffold.project import ProjectFiles, write_project

__all__ = ["Guess", "Overrides", "ProjectFiles", "Scaffolded", "scaffold", "write_project"]
