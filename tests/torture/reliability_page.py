"""Put the figures of `make torture` into the table of docs/reliability.md."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: make torture -->", "<!-- end of figures -->"


def table(results: Path) -> str:
    """Return a row for each result, in the order of the files' names."""
    lines = ["| load | found | command | seconds |", "|---|---|---|---|"]
    for path in sorted(results.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"| {row['load']} | {row['figure']} | `{row['command']}` | {row['seconds']} |")
    return "\n".join(lines)


def with_table(page: str, rows: str) -> str:
    """Return the page with the table between the two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{rows}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(
        with_table(PAGE.read_text(encoding="utf-8"), table(RESULTS)), encoding="utf-8", newline=""
    )
