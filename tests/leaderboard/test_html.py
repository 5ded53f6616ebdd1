"""The page of a board as HTML: its words, its marks, what it escapes, and how large it is."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from recbole_diffmm.errors import UserError
from recbole_diffmm.leaderboard.board import Cell
from recbole_diffmm.leaderboard.views import page as pages
from recbole_diffmm.leaderboard.views.html import IndexEntry, render, render_index
from recbole_diffmm.leaderboard.views.plotly_script import plotly_script
from recbole_diffmm.record import TestSelected as Selected
from tests.leaderboard.boards import digest
from tests.leaderboard.html_boards import HOSTILE, board, group, hostile_board, large_board, row, small_board

VOID = {"meta", "link", "br", "input", "img", "line", "circle"}


class Page(HTMLParser):
    """Every element with the text in it, and the text of scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.stack: list[int] = []
        self.unclosed: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.stack.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        opened = self.elements[self.stack.pop()][0]
        if tag in {"td", "th", "small", "li"}:
            self.handle_data(" ")  # they stand apart
        if opened != tag:
            self.unclosed.append(f"{opened} closed by {tag}")

    def handle_data(self, data):
        for place in self.stack:
            self.elements[place][2].append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of elements; `wanted` are words of an attribute."""
        return [
            (attributes, " ".join("".join(text).split()))
            for name, attributes, text in self.elements
            if name == tag
            and all(value in (attributes.get(key.rstrip("_")) or "").split() for key, value in wanted.items())
        ]

    def data(self, name: str) -> object:
        ((_, text),) = self.all("script", id=name)
        return json.loads(text)


def lines(text: str) -> dict[str, list[str]]:
    """The rows of ranked tables by their label, as the HTML of their cells."""
    found = {}
    for body in re.findall(r'<tr class="line".*?</tr>', text, re.DOTALL):
        (label,) = re.findall(r'aria-expanded="false">(.*?)</button>', body)
        found[label] = re.findall(r"<td[^>]*>(.*?)</td>", body, re.DOTALL)
    return found


def pictures(text: str) -> dict:
    ((_, packed),) = Page(text).all("script", id="pictures-data")
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_a_page_is_whole_html():
    page = Page(render(small_board()))
    assert not page.unclosed
    assert not page.stack
    assert [text for _, text in page.all("h1")] == ["A board"]
    assert page.all("html", lang="en")
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_table_can_be_read_without_seeing_it():
    page = Page(render(small_board()))
    assert all(attributes.get("scope") for attributes, _ in page.all("th"))
    assert all(attributes["type"] == "button" for attributes, _ in page.all("button"))
    sortable = [attributes for attributes, _ in page.all("th") if "aria-sort" in attributes]
    assert [attributes["aria-sort"] for attributes in sortable] == ["ascending"] + ["none"] * (len(sortable) - 1)
    assert page.all("caption")
    assert all(attributes.get("aria-label") for attributes, _ in page.all("div", role="img"))


def test_best_second_and_tied_are_marked():
    found = lines(render(small_board()))
    assert list(found) == ["DiffMM", "VBPR", "LightGCN", "Pop"]
    first = {label: cells[2] for label, cells in found.items()}  # rank, modalities, metric
    assert first["DiffMM"].startswith("<strong>0.4000</strong>")
    assert first["VBPR"].startswith("<u>0.3900</u><sup") and "not distinguishable" in first["VBPR"]
    assert all(mark not in first["Pop"] for mark in ("<strong>", "<u>", "<sup"))
    assert "±\u202f0.0012" in first["Pop"]
    assert "−0.2000" in "".join(found["LightGCN"]) and "p &lt; 0.001" in "".join(found["LightGCN"])
    assert "p = 0.20" in "".join(found["VBPR"])


def test_a_metric_has_its_own_marks():
    made = small_board()
    made.groups[0].rows[3].cells["ndcg@20"] = Cell(0.9, None, best=True)
    made.groups[0].rows[0].cells["ndcg@20"] = Cell(0.2, None, tied=True)
    found = lines(render(made))
    assert "<strong>0.9000</strong>" in found["Pop"][3]
    assert "<strong>" not in found["DiffMM"][3] and "<sup" in found["DiffMM"][3]


def test_every_table_carries_the_words_that_it_cannot_do_without():
    page = Page(render(small_board()))
    facts = dict(zip([text for _, text in page.all("dt")], [text for _, text in page.all("dd")], strict=True))
    assert facts["Dataset"] == "toy"
    assert (facts["Users"], facts["Items"], facts["Interactions"]) == ("60", "80", "1 700")
    assert facts["Split"] == digest("split")[:12]
    assert facts["Modalities"] == "smell, text"
    assert facts["Masked at test"] == "training and validation items"
    assert facts["Epoch selected by"] == "validation Recall@20"
    assert facts["Protocol"] == "recbole"
    assert facts["Seeds"] == "1, 2, 3"
    assert facts["Users tested"] == "60"
    assert facts["Smallest detectable difference"] == "0.0123 Recall@20"
    assert "the t-test does not tell it from VBPR" in page.all("p", class_="finding")[0][1]
    headers = " ".join(text for _, text in page.all("th"))
    for word in ("Recall@20", "NDCG@20", "95 % interval", "To best", "Epochs", "Seconds", "Host"):
        assert word in headers
    assert not any(word in headers for word in ("Device", "Energy", "Tuned")), "columns that say nothing are left out"
    assert facts["Tuned"] == "8 trials, all rows alike"


def test_costs_that_were_measured_have_columns():
    rows = [row("A", 0.4, peak_memory_mb={"host": 512.0, "device": 2345.0}, energy={"kwh": 0.0123, "kg_co2": 0.004})]
    text = render(board([group(rows)]))
    assert "2\u202f345" in text and "0.0123" in text
    assert "it is the only row" in text


def test_notes_are_seen():
    text = render(small_board())
    page = Page(text)
    ((_, told),) = page.all("ul", class_="notes")
    assert told == "LightGCN: stale: the code of LightGCN has changed since"
    assert page.all("small", class_="flag") == [({"class": "flag"}, "stale")]


def test_rows_that_were_tuned_differently_say_so():
    made = small_board()
    made.groups[0].rows[3].tuned = "not tuned: it has no settings"
    found = lines(render(made))
    assert found["Pop"][-1] == "not tuned: it has no settings" and found["DiffMM"][-1] == "8 trials"


def test_published_rows_stand_apart_and_are_never_ranked():
    page = Page(render(small_board()))
    ((_, text),) = page.all("tbody", class_="published")
    for word in ("not ranked", "Elsewhere", "0.9876", "Somebody 2024, Table 1", "best test epoch", "mrr@10 0.1234"):
        assert word in text
    assert "Elsewhere" not in lines(render(small_board()))


def test_test_selected_metrics_have_a_table_of_their_own():
    chosen = Selected(epoch=4, metrics={"recall@20": 0.777, "ndcg@20": 0.333}, selected_on="test Recall@20")
    rows = [row("DiffMM", 0.4)]
    rows[0].records = [
        record.model_copy(update={"metrics": record.metrics.model_copy(update={"test_selected": chosen})})
        for record in rows[0].records
    ]
    text = render(board([group(rows, protocol="paper")]))
    ((_, told),) = Page(text).all("div", class_="selected")
    for word in ("no fair estimate", "0.7770", "test Recall@20", "4, 4, 4"):
        assert word in told
    assert "0.7770" not in "".join(lines(text)["DiffMM"])
    assert not Page(render(small_board())).all("div", class_="selected")


def test_rows_without_a_result_are_told():
    text = render(board([], empty=[("SMORE", "toy", "CUDA out of memory"), ("MGCN", "toy", "no run yet")]))
    page = Page(text)
    ((_, told),) = page.all("table", class_="empty")
    assert "SMORE toy CUDA out of memory" in told and "MGCN toy no run yet" in told
    assert "No run of this board has a result yet" in text


def test_two_tables_of_a_dataset_differ_in_their_names():
    text = render(board([group([row("A", 0.4)]), group([row("A", 0.4)], protocol="paper")]))
    assert [title for _, title in Page(text).all("h2")] == ["toy, protocol recbole", "toy, protocol paper"]
    assert Page(text).all("nav")


def test_hostile_text_stays_text():
    text = render(hostile_board(HOSTILE))
    page = Page(text)
    assert not page.unclosed
    kinds = [attributes.get("type", "") for attributes, _ in page.all("script")]
    assert kinds == ["application/gzip", "application/gzip", "application/json", ""], "no script but the page's own"
    assert not page.all("img")
    assert not [name for _, attributes, _ in page.elements for name in attributes if name.startswith("on")]
    assert "<script>alert" not in text
    ((_, told),) = page.all("h1")
    assert told == " ".join(HOSTILE.split())
    assert page.data("runs")[0]["rows"][0]["runs"][0]["warnings"] == [HOSTILE]
    names = [trace["name"] for trace in pictures(text)["figures"]["g0-cost"]["data"] if "name" in trace]
    assert names and all("<" not in name for name in names), "Plotly reads some tags"


def test_json_in_a_script_cannot_end_it():
    text = str(pages.embedded({"<!--": "</ScRiPt>&\u2028"}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"<!--": "</ScRiPt>&\u2028"}


def test_nothing_is_loaded():
    text = render(small_board())
    page = Page(text)
    for tag, attributes, _ in page.elements:
        for name in ("src", "srcset", "href", "action", "data", "poster", "xlink:href"):
            assert re.match(r"#|data:,$|$", attributes.get(name) or ""), (tag, attributes)
    assert not re.search(r"@import|url\(", text)
    assert "http://" not in text and "https://" not in text
    ((policy, _),) = [entry for entry in page.all("meta") if entry[0].get("http-equiv")]
    assert policy["content"].startswith("default-src 'none'; script-src 'sha256-")


def test_the_policy_allows_the_scripts_that_are_there():
    text = render(small_board())
    policy = next(a["content"] for a, _ in Page(text).all("meta") if a.get("http-equiv"))
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    from recbole_diffmm.leaderboard.views.plotly_script import digest as name_of

    assert name_of(script[0].encode()) in policy
    assert plotly_script().digest in policy
    inflated = gzip.decompress(base64.b64decode(plotly_script().packed))
    assert name_of(inflated) == plotly_script().digest


def test_what_runs_share_is_told_once():
    text = render(small_board())
    (content,) = Page(text).data("runs")
    assert content["config"]["key_7"] == 7
    assert (text.count('"key_7"'), text.count(">key_7<")) == (1, 1), "in the JSON and in the table of shared settings"
    first = content["rows"][0]
    assert first["config"] == {"width_DiffMM": 64, "rate_DiffMM": 0.001}
    assert [entry["config"] for entry in first["runs"]] == [{"seed": seed} for seed in (1, 2, 3)]
    assert content["facts"]["Code / hash"] == digest("code")
    assert first["runs"][1]["facts"]["Test metrics / recall@20"] == pytest.approx(0.408)


def test_pictures_have_their_numbers_beside_them():
    text = render(small_board())
    figures = pictures(text)["figures"]
    assert [name.removeprefix("g0-") for name in figures] == [
        "curves",
        "cost",
        "significance",
        "users-by-history",
        "items-by-popularity",
        "without-modality",
        "beyond-0",
        "beyond-1",
        "beyond-2",
    ]
    page = Page(text)
    assert [attributes["data-figure"] for attributes, _ in page.all("div", class_="plot")] == list(figures)
    numbers = [told for _, told in page.all("details", class_="numbers")]
    assert len(numbers) == len(figures)
    assert "DiffMM 0.4000 0.3100 (−22.5 %)" in numbers[5]
    assert "DiffMM VBPR +0.0100 p = 0.20" in numbers[2]
    assert [trace["row"] for trace in figures["g0-without-modality"]["data"]] == [0]
    heat = figures["g0-significance"]["data"][0]
    assert heat["z"] == [[None, 0, 3, 3], [0, None, 3, 3], [-3, -3, None, 3], [-3, -3, -3, None]]
    losses = pictures(text)["losses"][0]
    assert len(losses) == 4 and list(losses[0][0]) and 0.5 <= losses[0][0]["bpr"][0] <= 0.6


def test_the_frontier_joins_what_nobody_beats():
    rows = [row(name, mean) for name, mean in (("slow", 0.4), ("beaten", 0.3), ("quick", 0.2))]
    for entry, seconds in zip(rows, (100.0, 200.0, 1.0), strict=True):
        entry.records = [r.model_copy(update={"seconds": {"to_best_epoch": seconds}}) for r in entry.records]
    text = render(board([group(rows)]))
    frontier = pictures(text)["figures"]["g0-cost"]["data"][0]
    assert frontier["x"] == [1.0, 100.0] and frontier["y"] == [0.2, 0.4]
    numbers = Page(text).all("details", class_="numbers")[1][1]
    assert "beaten 0.3000 200 512 (the host) no" in numbers and "slow 0.4000 100 512 (the host) yes" in numbers


def test_rows_without_tests_and_slices_still_make_a_page():
    rows = [row("A", 0.4, slices=None, curve=[], seconds={}, beyond_accuracy={}), row("B", 0.3, slices=None)]
    text = render(board([group(rows, tests={}, n_tested=None)]))
    assert "not tested" in text and "nothing can be tested" in text
    assert "g0-significance" not in pictures(text)["figures"]


def test_a_page_of_sixty_runs_is_small():
    assert len(render(large_board(20, 3)).encode()) < 3_000_000


def test_a_page_of_many_rows_draws_and_lists_what_can_be_read():
    text = render(large_board(60, 1, epochs=3))
    heat = pictures(text)["figures"]["g0-significance"]["data"][0]
    assert len(heat["z"]) == 30
    assert "all 435 pairs of the best 30 of 60 rows." in text
    assert "The best 40 of the rows that the filter leaves are drawn." in text
    assert len(lines(text)) == 60


def test_the_same_board_gives_the_same_page():
    assert render(small_board()) == render(small_board())


def test_the_index_lists_boards():
    entries = [
        IndexEntry(
            "tiktok-all", "TikTok", "tiktok-all/index.html", ("tiktok", "tiktok"), 6, 30, "DiffMM, 0.1", "2026-01-02"
        ),
        IndexEntry("new", HOSTILE, "new/index.html", (), 0, 0, "", ""),
    ]
    text = render_index(entries)
    page = Page(text)
    assert not page.unclosed and not page.all("script")
    links = [(attributes["href"], told) for attributes, told in page.all("a")]
    assert links == [("tiktok-all/index.html", "TikTok"), ("new/index.html", " ".join(HOSTILE.split()))]
    assert "tiktok-all on tiktok; 6 rows, 30 runs, the last one of 2026-01-02" in page.all("p", class_="meta")[1][1]
    assert "no board here" in render_index([])


def test_without_jinja2_a_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    pages._environment.cache_clear()
    try:
        with pytest.raises(UserError, match=r'pip install "recbole-diffmm\[leaderboard\]"'):
            render(small_board())
    finally:
        pages._environment.cache_clear()
