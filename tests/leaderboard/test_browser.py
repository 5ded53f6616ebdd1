"""The page of a board in a real browser, from disk and without a network: what only a browser can tell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recbole_diffmm.leaderboard.views.html import IndexEntry, render, render_index
from recbole_diffmm.tuning.pictures import write_page
from tests.leaderboard.html_boards import HOSTILE, hostile_board, small_board
from tests.tuning.test_pictures import a_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium comes with the extra `test`")
from selenium.common.exceptions import TimeoutException, WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

PATIENCE = 30  # seconds, for a machine with other work; nothing here takes more than two


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pages and nothing else."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "board.html").write_text(render(small_board()), encoding="utf-8")
    (folder / "hostile.html").write_text(render(hostile_board(HOSTILE)), encoding="utf-8")
    entry = IndexEntry(
        "board", "A board with a long name " * 4, "board.html", ("toy",), 4, 12, "DiffMM, 0.4", "2026-01-02"
    )
    write_page(folder / "study.html", a_report())
    (folder / "index.html").write_text(render_index([entry]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # there is no network
    ):
        options.add_argument(argument)
    try:
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {str(error)[:200]}")
    started.set_page_load_timeout(PATIENCE)
    started.set_script_timeout(PATIENCE)
    yield started
    started.quit()


class Tab:
    """A page that is open, and what a reader does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def __call__(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Wait until a script returns something true."""
        try:
            return WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: self(script, *arguments))
        except TimeoutException:
            raise AssertionError(f"not true in {PATIENCE} s: {script}") from None

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def labels(self) -> list[str]:
        return self("return [...document.querySelectorAll('tr.line:not([hidden]) .open')].map((b) => b.textContent)")

    def header(self, title: str) -> Any:
        return next(
            head for head in self.driver.find_elements(By.CSS_SELECTOR, "table.board thead th") if title in head.text
        )

    def draw(self, figure: str) -> None:
        """Scroll to a picture and wait until it is drawn."""
        self("document.querySelector(`[data-figure='${arguments[0]}']`).scrollIntoView()", figure)
        self.wait(
            "const plot = document.querySelector(`[data-figure='${arguments[0]}']`);"
            "return plot.matches('.js-plotly-plot') && plot.querySelector('svg.main-svg') && plot.dataset.theme",
            figure,
        )

    def emulate(self, scheme: str = "light", width: int = 1280, height: int = 900, mobile: bool = False) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def tab(browser: Any, pages: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    opened = Tab(browser)
    opened.emulate()
    browser.get((pages / getattr(request, "param", "board.html")).as_uri())
    yield opened
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe


def test_a_click_on_a_header_sorts(tab):
    assert tab.labels() == ["DiffMM", "VBPR", "LightGCN", "Pop"]
    head = tab.header("Recall@20")
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending", "the best first"
    assert tab.labels() == ["DiffMM", "VBPR", "LightGCN", "Pop"]
    button.send_keys(Keys.ENTER)  # the keyboard does it, too
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.labels() == ["Pop", "LightGCN", "VBPR", "DiffMM"]
    assert tab("return document.querySelectorAll('[aria-sort]:not([aria-sort=none])').length") == 1
    tab.header("Modalities").find_element(By.TAG_NAME, "button").click()
    assert tab.labels()[:2] == ["VBPR", "DiffMM"], "rows without modalities come last"
    assert "Elsewhere" in tab.find("table.board").text.splitlines()[-2], "published rows stay below"


def test_rows_are_filtered_and_pictures_follow(tab):
    tab.draw("g0-curves")
    names = "return [...document.querySelectorAll('[data-figure=g0-curves] .legendtext')].map((t) => t.textContent)"
    assert tab(names) == ["DiffMM", "VBPR", "LightGCN", "Pop"]
    tab.find("#filter").send_keys("gcn")
    tab.wait("return document.querySelectorAll('tr.line:not([hidden])').length === 1")
    assert tab.labels() == ["LightGCN"]
    assert tab.find("#shown").text == "1 of 4 rows"
    tab.wait(names + ".join() === 'LightGCN'")
    tab.find("#filter").clear()
    tab("document.querySelector('#filter').dispatchEvent(new Event('input'))")
    tab("document.querySelector('input[value=multimodal]').click()")
    tab.wait("return document.querySelectorAll('tr.line:not([hidden])').length === 2")
    assert tab.labels() == ["DiffMM", "VBPR"]
    tab("document.querySelector('input[value=interactions]').click()")
    assert tab.labels() == ["LightGCN", "Pop"]


def test_a_row_opens_to_its_runs(tab):
    button = tab.find("#g0r3 .open")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    panel = tab.find(f"#{button.get_attribute('aria-controls')}")
    for word in ("3 runs", "seed 1", "seed 3", "recall@20", "a warning of this run", "width_Pop", "2.13.0", "host MiB"):
        assert word in panel.text
    panel.find_element(By.CSS_SELECTOR, "details summary").click()
    assert "key_99: 99" in panel.find_element(By.TAG_NAME, "pre").text
    cell = tab.find("#g0r0 td.metric")  # anywhere in a row
    tab("arguments[0].scrollIntoView({ block: 'center' })", cell)
    cell.click()
    tab.wait("return document.querySelectorAll('#g0r0-runs .js-plotly-plot svg.main-svg').length >= 2")
    for _ in range(2):
        tab.header("Recall@20").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    order = tab("return [...document.querySelector('table.board').tBodies[0].rows].map((r) => r.id || r.className)")
    assert order == ["g0r3", "drill", "g0r2", "g0r1", "g0r0", "drill"], "a panel stays with its row"
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "false"
    assert len(tab.driver.find_elements(By.CSS_SELECTOR, "tr.drill")) == 1


def test_all_pictures_are_drawn_in_light_and_dark(tab):
    figures = tab("return [...document.querySelectorAll('[data-figure]')].map((plot) => plot.dataset.figure)")
    assert len(figures) == 9
    for figure in figures:
        tab.draw(figure)
    colours = (
        "return [getComputedStyle(document.body).backgroundColor, "
        "...[...document.querySelectorAll('[data-figure]')].map((p) => p.querySelector('.xtick text').style.fill)]"
    )
    light = tab(colours)
    tab.emulate("dark")
    tab.wait("return [...document.querySelectorAll('[data-figure]')].every((plot) => plot.dataset.theme === 'dark')")
    dark = tab(colours)
    assert len(light) == 10 and all(a and b and a != b for a, b in zip(light, dark, strict=True))
    assert tab("return performance.getEntriesByType('resource').filter((r) => !r.name.startsWith('data:')).length") == 0


def test_the_page_is_there_to_be_looked_at(tab, tmp_path):
    """An empty window of this size takes some kilobytes; what it looks like is for people."""
    for width, least in ((1280, 40_000), (390, 15_000)):
        tab.emulate(width=width, height=900)
        file = tmp_path / f"{width}.png"
        assert tab.driver.save_screenshot(str(file))
        assert file.stat().st_size > least
    shown = "return getComputedStyle(document.querySelector('.board td.text')).display"
    assert tab(shown) == "none"
    tab.emulate(width=1280, height=900)
    assert tab(shown) == "table-cell"


@pytest.mark.parametrize("tab", ["study.html"], indirect=True)
def test_the_page_of_a_search_draws_and_sorts(tab):
    for figure in tab("return [...document.querySelectorAll('[data-figure]')].map((plot) => plot.dataset.figure)"):
        tab.draw(figure)
    tab.header("Recall@20").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    numbers = "return [...document.querySelectorAll('tr.line')].map((row) => row.cells[0].textContent)"
    assert tab(numbers) == ["2", "0", "4", "1", "3"], "the failed one has no score and is last"


@pytest.mark.parametrize("tab", ["board.html", "hostile.html", "index.html", "study.html"], indirect=True)
def test_a_phone_scrolls_tables_and_never_the_page(tab):
    tab.emulate(width=390, height=844, mobile=True)
    tab.driver.refresh()
    for button in tab.driver.find_elements(By.CSS_SELECTOR, "button.open")[:1]:
        button.click()
        tab.wait("return document.querySelectorAll('.panel .js-plotly-plot svg.main-svg').length >= 2")
        tab.draw("g0-cost")
    assert tab("return document.documentElement.scrollWidth") <= 390
    assert tab("return [...document.querySelectorAll('.panel')].every((panel) => panel.offsetWidth <= 390)")


@pytest.mark.parametrize("tab", ["hostile.html"], indirect=True)
def test_hostile_text_is_shown_and_not_run(tab):
    tab("window.alert = () => { window.alerted = true; }")
    tab.find("#g0r0 .open").click()
    tab.wait("return document.querySelectorAll('.panel .js-plotly-plot svg.main-svg').length >= 2")
    tab.draw("g0-curves")
    assert "<img src=x onerror=alert(2)>" in tab.find(".panel").text
    assert tab("return document.images.length === 0 && !window.alerted")
    assert tab("return document.querySelector('[data-figure=g0-curves] .legendtext').textContent").startswith(
        "</script>"
    )


def test_without_javascript_there_is_a_table(tab):
    tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        tab.driver.refresh()
        assert "0.4000" in tab.find("#g0r0").text and "0.9876" in tab.find(".published").text
        assert not tab.find(".tools").is_displayed()
        assert "the numbers of each stand in its place" in tab.find("main").text
    finally:
        tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
