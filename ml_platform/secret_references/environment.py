"""Settings from variables of the environment, with the secrets that they refer to."""

import json
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from ml_platform.errors import PlatformError
from ml_platform.secret_references.providers import SecretNotRead, read_secret
from ml_platform.secret_references.references import resolve

SQL = "_sql"
"""Ends the name of a setting that holds statements."""


class SettingsVariables(EnvSettingsSource):
    """Variables of the environment whose values may refer to secrets.

    References are resolved inside of JSON too, after it was read: a secret cannot end a text of it.
    Where a variable is a reference and nothing else, the secret may itself be JSON.

    PlatformError names the variable whose reference or JSON cannot be read.
    """

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        variable = f"{self.env_prefix}{field_name}".upper()

        def resolved(part: Any) -> Any:
            if isinstance(part, str):
                return resolve(part, read_secret, is_sql=field_name.endswith(SQL))
            if isinstance(part, dict):
                return {name: resolved(value) for name, value in part.items()}
            if isinstance(part, list):
                return [resolved(value) for value in part]
            return part

        try:
            if isinstance(value, str) and value.startswith("${"):
                # Perhaps all of it, JSON included.
                value = resolved(value)
                return super().prepare_field_value(field_name, field, value, value_is_complex)
            return resolved(super().prepare_field_value(field_name, field, value, value_is_complex))
        except SecretNotRead as error:
            raise SecretNotRead(f"{variable}: {error}") from None
        except json.JSONDecodeError as error:
            # The text itself may hold a password.
            raise PlatformError(
                f"{variable} is not valid JSON: {error.msg}, at character {error.pos + 1}"
            ) from None
