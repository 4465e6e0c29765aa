"""Small tables as people have them: a time, some columns, and one to predict."""

from pathlib import Path

import numpy as np
import pandas as pd


def power(folder: Path) -> Path:
    """A reading a minute for three days: hourly windows, regression."""
    dice, rows = np.random.default_rng(0), 3 * 24 * 60
    warm = 10 + 8 * np.sin(np.arange(rows) / 1440 * 2 * np.pi) + dice.normal(0, 1, rows)
    zone = dice.choice(["north", "south", "east"], rows)
    humidity = dice.uniform(20, 90, rows).round(1)
    humidity[::97] = np.nan
    table = pd.DataFrame(
        {
            "measured_at": pd.date_range("2024-03-29", periods=rows, freq="min"),
            "zone": zone,
            "temperature": warm.round(2),
            "humidity": humidity,
            "load": (50 + 3 * warm + 5 * (zone == "north") + dice.normal(0, 3, rows)).round(2),
        }
    )
    file = folder / "power.csv"
    table.to_csv(file, index=False)
    return file


def tickets(folder: Path) -> Path:
    """80 tickets a day for 45 days: daily windows, binary, names that need quotes."""
    dice, rows = np.random.default_rng(1), 45 * 80
    plan, calls = dice.choice(["basic", "plus", "pro"], rows), dice.poisson(3, rows)
    chance = 1 / (1 + np.exp(-(calls - 3.0) - (plan == "basic")))
    seconds = np.sort(dice.integers(0, 45 * 86_400, rows))
    table = pd.DataFrame(
        {
            "ticket_id": np.arange(rows) + 1,
            "created_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, "s"),
            "resolved_at": pd.Timestamp("2024-01-03") + pd.to_timedelta(seconds, "s"),
            "plan": plan,
            "calls": calls,
            "Monthly Charge": dice.normal(40, 10, rows).round(2),
            "verdict": np.where(dice.random(rows) < chance, "escalate", "close"),
        }
    )
    file = folder / "tickets.jsonl"
    table.to_json(file, orient="records", lines=True, date_format="iso")
    return file


def orders(folder: Path) -> Path:
    """60 shops for 30 months: monthly windows, multiclass, a key of two columns."""
    dice, rows = np.random.default_rng(2), 30 * 60
    size = dice.normal(size=rows)
    kind = np.where(size < -0.6, "small", np.where(size > 0.6, "large", "medium"))
    kind = np.where(dice.random(rows) < 0.1, dice.choice(["small", "medium", "large"], rows), kind)
    months = np.repeat(pd.date_range("2020-01-01", periods=30, freq="MS", tz="UTC"), 60)
    table = pd.DataFrame(
        {
            "shop": [f"shop{number:02d}" for number in range(60)] * 30,
            "date": months + pd.to_timedelta(dice.integers(0, 27, rows), "D"),
            "size": size.round(3),
            "region": dice.choice(["a", "b"], rows),
            "class": kind,
        }
    )
    file = folder / "orders.parquet"
    table.to_parquet(file)
    return file
