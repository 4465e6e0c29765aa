"""Which project a notebook works on."""

from pathlib import Path

from ml_platform.settings import Settings


def placed(settings: Settings, project: str | Path | None) -> Settings:
    """Settings whose folders are those of a project, wherever the notebook is."""
    here = Path.cwd()
    if project is not None:
        root = Path(project).expanduser().resolve()
    else:
        # Notebooks often are in a folder of their own, which is where they are run.
        above = (
            folder for folder in (here, *here.parents) if (folder / settings.use_cases).is_dir()
        )
        root = next(above, here)
    folders = {
        name: root / getattr(settings, name) for name in ("use_cases", "data", "environments")
    }
    return settings.model_copy(update=folders)
