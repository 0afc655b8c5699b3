"""Pages in a browser: what they say and request, their pictures, and whether all can use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).resolve().parent.parent / "data" / "axe-core" / "axe.min.js"


class Page:
    """A page that is ready, with its problems and its requests."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready=yes]")

    def _said(self, message: Any) -> None:
        if "GPU stall due to ReadPixels" not in message.text:  # of the picture that a test takes
            self.problems.append(message.text)

    @property
    def elsewhere(self) -> list[str]:
        """Requests that left the machine."""
        here = ("file:", "data:", "blob:", "http://127.0.0.1")
        return [url for url in self.requests if not url.startswith(here)]

    def says(self, selector: str, text: str) -> None:
        """Wait until an element's text has this in it; a page may say it a moment later."""
        self.page.wait_for_function(
            "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
            arg=[selector, text],
        )

    def fits(self, width: int, *selectors: str) -> None:
        """Make the window this wide, and wait until these elements need no more than they have."""
        self.page.set_viewport_size({"width": width, "height": 800})
        for selector in selectors:
            self.page.wait_for_function(
                "selector => { const {scrollWidth, clientWidth} = document.querySelector(selector);"
                " return scrollWidth <= clientWidth; }",
                arg=selector,
            )

    def findings(self) -> list[str]:
        """Serious and critical findings of axe-core, which runs outside the page's policy."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        results = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{found['id']}: {node['target']} {node.get('failureSummary', '')}"
            for found in results["violations"]
            if found["impact"] in ("serious", "critical")
            for node in found["nodes"]
        ]

    def colours(self) -> int:
        """Return the number of colours in the 3D view's picture."""
        colours: int = self.page.evaluate(
            """() => {
                const drawn = document.querySelector(".viewer canvas");
                const flat = new OffscreenCanvas(drawn.width, drawn.height).getContext("2d");
                flat.drawImage(drawn, 0, 0);
                const {data} = flat.getImageData(0, 0, drawn.width, drawn.height);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
        return colours

    def saved(self, button: str) -> bytes:
        """Press a button and return the file that the page saves."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button, exact=True).click()
        return Path(download.value.path()).read_bytes()
