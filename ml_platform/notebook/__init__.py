"""A use case for notebooks: frames, point-in-time joins, scores, backtests, pictures; read only."""

from ml_platform.notebook.opened import OpenedUseCase, open_use_case
from ml_platform.notebook.plotting import Plotting
from ml_platform.replay import Backtest
from ml_platform.training.plots import Picture

__all__ = ["Backtest", "OpenedUseCase", "Picture", "Plotting", "open_use_case"]
