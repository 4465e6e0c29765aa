"""Few rows predicted without scikit-learn's fixed cost a call, to the same bits."""

from ml_platform.serving.compiled.proof import Compiled, compiled

__all__ = ["Compiled", "compiled"]
