"""What a comparison of two archives found."""

from dataclasses import dataclass, field

from ptycho_torch.html.page import Cell, Picture, Verdict
from ptycho_torch.testing.manifest import Entry

WORSE, MISSING, NOT_COMPARED = "worse", "missing", "not compared"

Row = tuple[Cell, ...]


@dataclass
class PictureChange:
    """A picture before and now, the difference where it can be taken, and the verdict."""

    before: Picture
    now: Picture
    difference: Picture | None
    verdict: str


@dataclass
class Comparison:
    """Rows of each table, which begin with the test, and changed pictures."""

    metrics: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)
    pictures: list[PictureChange] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def verdict(self) -> str:
        """One of "worse", "no worse" and "nothing compared"."""
        if self.worse:
            return WORSE
        return "no worse" if self.compared else "nothing compared"

    @property
    def metric_entries(self) -> list[Entry]:
        """The rows of metrics as the manifest keeps them."""
        columns = ("test", "name", "before", "now", "tolerance", "verdict")
        return [
            {
                name: value.word if isinstance(value, Verdict) else value
                for name, value in zip(columns, row, strict=True)
            }
            for row in self.metrics
        ]

    @property
    def summary(self) -> str:
        """One clause: the verdict with its numbers."""
        parts = [f"{self.compared} tests compared", f"{len(self.worse)} worse or missing"]
        if self.not_compared:
            parts.append(f"{len(self.not_compared)} not compared")
        return f"{self.verdict} ({', '.join(parts)})"
