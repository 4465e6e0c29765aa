"""What the year came to: figures, decisions, and one picture."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.year_picture import draw_year
from ml_platform.metrics import measure
from ml_platform.registry import Promotion, history
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


@dataclass(frozen=True)
class Summary:
    """The year in numbers."""

    use_case: UseCase
    rows: dict[str, int]
    decisions: list[Promotion]
    pooled: dict[str, float]
    """Metrics of all predictions whose label is known, taken together."""
    picture: Path

    def show(self, console: Console) -> None:
        """Print the summary as two small tables."""
        tables = Table("table", "rows", title=f"{self.use_case.name}: what is in the lake")
        for name, count in self.rows.items():
            tables.add_row(name, f"{count:,}")
        metric = self.use_case.model.metric
        models = Table("from", "version", "decision", f"its {metric}", "champion's", title="models")
        for decision in self.decisions:
            challenger = decision.figures.get(f"challenger_{metric}")
            champion = decision.figures.get(f"champion_{metric}")
            models.add_row(
                f"{decision.effective_from.astimezone(self.use_case.calendar.timezone):%Y-%m-%d}",
                str(decision.version),
                decision.decision,
                "" if challenger is None else f"{challenger:.4f}",
                "" if champion is None else f"{champion:.4f}",
            )
        console.print(tables, models)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.pooled.items())
        console.print(f"All predictions together: {figures}")
        console.print(f"Picture: {self.picture}")


def summarize(lake: Lake, use_case: UseCase, year: Window, folder: Path) -> Summary:
    """Read the year back from the lake and draw its picture into a folder."""
    with lake.cursor(use_case.timezone) as cursor:
        names = sorted(lake.tables(cursor, use_case.name))
        rows = {}
        for name in names:
            counted = cursor.execute(
                f"SELECT count(*) FROM {lake.relation(cursor, use_case.name, name)}"
            ).fetchone()
            rows[name] = int(counted[0]) if counted else 0
        keys = ", ".join((*use_case.examples.entity, "event_time"))
        joined = cursor.execute(
            f"""SELECT probability, label FROM lake.{use_case.name}.predictions
            JOIN lake.{use_case.name}.labels USING ({keys})"""
        ).fetch_df()
    picture = draw_year(lake, use_case, year, folder / f"{use_case.name}.png")
    pooled = measure(use_case.label.task, joined["label"], joined[["probability"]])
    return Summary(use_case, rows, history(lake, use_case), pooled, picture)
