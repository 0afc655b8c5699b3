"""The report's page in a browser: no error, no request, a map that reacts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_files import ODD_ID

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """The page, and all that it said and asked for."""

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
        """What stands beside the map."""
        text: str = self.page.inner_text("#map-panel")
        return text

    def place(self, curve: int, index: int) -> tuple[float, float]:
        """Where a point of the map is in the window."""
        self.page.locator("#map").scroll_into_view_if_needed()
        x, y = self.page.evaluate(
            """([curve, index]) => {
                const plot = document.getElementById("map"), own = plot._fullLayout;
                const box = plot.getBoundingClientRect(), trace = plot.data[curve];
                return [box.x + own.margin.l + own.xaxis.d2p(trace.x[index]),
                        box.y + own._size.t + own.yaxis.d2p(trace.y[index])];
            }""",
            [curve, index],
        )
        return x, y


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    """The page at a desktop's size."""
    found = Opened(browser, report / "index.html", viewport={"width": 1280, "height": 900})
    yield found
    found.page.close()


def test_it_opens_without_an_error_or_a_request(opened: Opened, report: Path) -> None:
    """Nothing on the console; nothing asked for but the file itself and what is inside it."""
    assert opened.problems == []
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [(report / "index.html").as_uri()]
    broken = "[...document.images].filter(image => image.naturalWidth === 0).length"
    assert opened.page.evaluate(broken) == 0


def test_the_map_shows_what_is_pointed_at(opened: Opened) -> None:
    """Hovering over a sequence, then over another, changes the neighbours beside the map."""
    seen = [opened.panel]
    for index in (0, 5):
        opened.page.mouse.move(*opened.place(3, index))
        opened.page.wait_for_function(
            "before => document.getElementById('map-panel').innerText !== before", arg=seen[-1]
        )
        seen.append(opened.panel)
    assert "nearest structures" in seen[1]
    assert len(set(seen)) == 3
    assert opened.problems == []


def test_a_click_keeps_a_point_until_escape(opened: Opened) -> None:
    """A clicked structure stays shown while the mouse is elsewhere; Escape lets go of it."""
    opened.page.mouse.click(*opened.place(4, 2))
    opened.page.wait_for_function("document.getElementById('map-message').innerText !== ''")
    kept = opened.panel
    assert "nearest sequences" in kept
    opened.page.mouse.move(*opened.place(3, 5))
    assert opened.panel == kept
    opened.page.keyboard.press("Escape")
    assert opened.page.inner_text("#map-message") == ""


def test_search_finds_ids_and_says_what_it_does_not_find(opened: Opened) -> None:
    """Whole ids, beginnings of ids, odd ids; a neighbour's button goes on to that neighbour."""
    box = opened.page.locator("#map-search")
    for wanted, found in (("110l_A", "110l_A"), ("1bns", "1bns_C"), (ODD_ID, ODD_ID)):
        box.fill(wanted)
        box.press("Enter")
        assert opened.page.inner_text("#map-panel h3") == found
    box.fill("nobody")
    box.press("Enter")
    assert "no protein here is called “nobody”" in opened.page.inner_text("#map-message")
    neighbour = opened.page.locator("#map-panel li button").first
    name = neighbour.inner_text()
    neighbour.click()
    assert opened.page.inner_text("#map-panel h3") == name
    assert "nearest sequences" in opened.panel
    assert opened.page.evaluate("document.activeElement.id") == "map-panel"
    assert opened.problems == []


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 390, "height": 844}},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    ids=["narrow", "dark"],
)
def test_it_fits_a_telephone_and_stays_light(
    browser: Any, report: Path, options: dict[str, Any]
) -> None:
    """No sideways scrolling of the whole page; black on white where the browser prefers dark."""
    opened = Opened(browser, report / "index.html", **options)
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= options["viewport"]["width"]
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"
    assert opened.problems == []
    opened.page.close()
