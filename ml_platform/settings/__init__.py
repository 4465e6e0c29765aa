"""Where things live: the only difference between a laptop and a cluster.

Every field can be set by an environment variable, `ML_PLATFORM_` and its name in capitals; those of
the prediction service begin with `ML_PLATFORM_SERVING_`. Its value may refer to secrets that are
kept elsewhere, `${file:/run/secrets/lake}`.
"""

from ml_platform.settings.deployment import EndpointSettings, Settings
from ml_platform.settings.service import WEBHOOK_SECRET, CallbackReceiver, ServingSettings

__all__ = ["WEBHOOK_SECRET", "CallbackReceiver", "EndpointSettings", "ServingSettings", "Settings"]
