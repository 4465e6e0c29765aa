from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from ml_platform.features import OnlineStore, open_online_store
from ml_platform.settings import Settings


class OnlineStoreResource(dg.ConfigurableResource[Any]):
    """The store that features are looked up from online; by default the one the settings name."""

    online_store: str | None = None
    _store: OnlineStore = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Settings are read here, in the process that runs, not where definitions are loaded."""
        settings = Settings()
        if self.online_store:
            settings = settings.model_copy(update={"online_store": self.online_store})
        self._store = open_online_store(settings)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._store.close()

    @property
    def store(self) -> OnlineStore:
        return self._store
