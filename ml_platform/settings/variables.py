"""Settings from variables of the environment, and from nowhere else."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ml_platform.secret_references import SettingsVariables


class VariableSettings(BaseSettings):
    """Settings from the environment alone, with the secrets that they refer to."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, SettingsVariables(settings_cls)
