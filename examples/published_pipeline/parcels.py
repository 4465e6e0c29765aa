"""Invented parcels of March 2024, landed as files: one for each day."""

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_platform.settings import Settings
from ml_platform.spec.queries import literal
from ml_platform.storage import Lake

ZONE = ZoneInfo("Europe/Berlin")
DEPOTS = ("Hamburg", "Leipzig", "Munich")
A_DAY = 48
"""Parcels of a day, half an hour apart."""


def parcels_of(day: date) -> pd.DataFrame:
    """The parcels of a day: those that go far take long, and so do those of one depot."""
    rng = np.random.default_rng(day.toordinal())
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZONE)
    depot = rng.integers(len(DEPOTS), size=A_DAY)
    distance = rng.uniform(5, 800, A_DAY).round(1)
    hours = 8 + distance / 40 + 6 * (depot == 1) + rng.normal(0, 4, A_DAY)
    return pd.DataFrame(
        {
            "parcel": day.toordinal() * 100 + np.arange(A_DAY),
            "sent_at": [midnight + timedelta(minutes=29 * i) for i in range(A_DAY)],
            "depot": np.array(DEPOTS)[depot],
            "distance_km": distance,
            "hours": hours.clip(1).round(2),
        }
    )


def land(settings: Settings, folder: str, first: date, last: date) -> None:
    """Land a file for each day, in a folder below the use case's landing folder, or right in it."""
    place = f"{settings.landing_uri.rstrip('/')}/parcels/{folder}"
    if "://" not in place:
        Path(place).mkdir(parents=True, exist_ok=True)
    lake = Lake(settings)
    with lake.cursor() as cursor:
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            cursor.register("landed", parcels_of(day))
            target = literal(f"{place}{day}.csv")
            cursor.execute(f"COPY (FROM landed) TO {target} (HEADER)")
            cursor.unregister("landed")
    lake.close()
