"""Secrets that settings refer to: `${env:NAME}`, `${file:/run/secrets/lake}`, `${vault:path#key}`.

`references` finds them in a setting and writes each secret as its place needs it, `providers` knows
where they are kept, `vault` reads HashiCorp Vault and OpenBao, `environment` is how settings come
from the environment.
"""

from ml_platform.secret_references.environment import SettingsVariables
from ml_platform.secret_references.providers import PROVIDERS, SecretNotRead

__all__ = ["PROVIDERS", "SecretNotRead", "SettingsVariables"]
