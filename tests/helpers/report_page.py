"""The report's page in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Opened:
    """The page, with everything that it wrote to the console and requested."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#map[data-ready=yes]")

    @property
    def panel(self) -> str:
        """The text beside the map."""
        text: str = self.page.inner_text("#map-panel")
        return text

    def place(self, group: int, index: int) -> tuple[float, float]:
        """Return the position of a point of the map in the window."""
        self.page.locator("#map").scroll_into_view_if_needed()
        x, y = self.page.evaluate(
            """([group, index]) => {
                const plot = document.getElementById("map"), {groups} = plot.pointMap;
                const box = plot.getBoundingClientRect(), {x, y} = groups[group];
                const [left, top] = plot.pointMap.place(x[index], y[index]);
                return [box.x + left, box.y + top];
            }""",
            [group, index],
        )
        return x, y
