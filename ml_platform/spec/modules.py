"""Python files of a use case, run as modules of their own."""

import hashlib
import linecache
import sys
import types
from pathlib import Path

from ml_platform.errors import Location, SpecError


def module_name(use_case: str, file: Path) -> str:
    """What a file's module is called: by its text alone, not by where the folder is."""
    source = file.read_text(encoding="utf-8")
    return f"{use_case}_{file.stem}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"


def run_module(use_case: str, file: Path) -> types.ModuleType:
    """Run a Python file as a module of its own; the same text is run only once.

    Raises SpecError, with the line, where it raises anything.
    """
    name = module_name(use_case, file)
    if name in sys.modules:
        return sys.modules[name]
    source = file.read_text(encoding="utf-8")
    module = types.ModuleType(name)
    shown = f"{use_case}/{file.name}"
    module.__file__ = shown
    # Tracebacks find the text here, since no file has the name shown.
    linecache.cache[shown] = (len(source), None, source.splitlines(keepends=True), shown)
    sys.modules[name] = module
    try:
        exec(compile(source, shown, "exec"), module.__dict__)
    except Exception as error:
        # A use case's own code can fail in any way.
        del sys.modules[name]
        where = Location(file, getattr(error, "lineno", None) or line_within(error, shown))
        raise SpecError(where, "", f"{type(error).__name__}: {error}") from error
    return module


def line_within(error: BaseException, file: str) -> int | None:
    """The last line of a file that an error came through."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines[-1] if lines else None
