"""The text views: their words, marks and escapes."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_diffmm import UserError, provenance
from recbole_diffmm import record as records
from recbole_diffmm.cli import main
from recbole_diffmm.compare import render as render_runs
from recbole_diffmm.leaderboard import manifest
from recbole_diffmm.leaderboard.board import Board
from recbole_diffmm.leaderboard.difference import describe
from recbole_diffmm.leaderboard.gather import gather
from recbole_diffmm.leaderboard.render import render
from recbole_diffmm.leaderboard.spec import Published
from recbole_diffmm.leaderboard.views import latex, markdown, table_csv, terminal, words
from tests.leaderboard.boards import METRICS, digest, record, write_board, write_run

FOLDER = Path("results/board")
PUBLISHED = Published(
    model="LightGCN", dataset="toy", metrics={"recall@20": 0.0653}, source="A paper", protocol="best test epoch"
)


@pytest.fixture(autouse=True)
def _same_code(monkeypatch):
    monkeypatch.setattr(provenance, "code_hash", lambda model: digest("code"))


def _board(**changes) -> Board:
    rows = {"DiffMM": 0.1, "LightGCN": 0.0999, "BPR": 0.05, "Pop": 0.0}
    return gather(FOLDER, write_board(FOLDER, rows, reference="BPR", published=[PUBLISHED], **changes))


def test_every_table_carries_the_words_that_it_cannot_do_without():
    board = _board()
    for text in (markdown.render(board), latex.render(board), terminal.render(board)):
        for word in ("toy", digest("split")[:12], "smell, text", "training and validation items", "1, 2, 3"):
            assert word in text
        assert "validation Recall@20" in text
        assert "300" in text


def test_a_board_without_validation_says_that_the_last_epoch_is_reported():
    curve = [{"epoch": epoch, "losses": {"bpr": 0.5}, "seconds": {"ranking": 0.5}} for epoch in range(5)]
    board = _board(changes={"selection": "last epoch", "curve": curve, "best_epoch": 4})
    for text in (markdown.render(board), latex.render(board), terminal.render(board), table_csv.render(board)):
        assert "last epoch" in text
    assert render(FOLDER) is not None
    assert "last epoch" in (FOLDER / "index.html").read_text()


def test_markdown_marks_best_second_and_tied():
    board = _board()
    table = markdown.render(board).partition("Mean ±")[0]
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    (group,) = board.groups
    best, second = group.rows[0], group.rows[1]
    assert f"**{best.cells['recall@20'].mean:.4f} ±" in rows[best.label]
    assert f"<u>{second.cells['recall@20'].mean:.4f} ±" in rows[second.label]
    assert "°" in rows[second.label]
    assert "°" not in rows["Pop"]
    assert "**" not in rows["Pop"]


def test_published_rows_stand_apart_with_their_protocol():
    text = markdown.render(_board())
    ours, _, published = text.partition("Published elsewhere")
    assert "0.0653" not in ours
    assert "| LightGCN | 0.0653 | - | best test epoch | A paper |" in published


def test_test_selected_epochs_stand_in_a_table_of_their_own():
    chosen = {"epoch": 7, "metrics": {"recall@20": 0.9, "ndcg@20": 0.8}, "selected_on": "test Recall@20"}
    metrics = {**record()["metrics"], "test_selected": chosen}
    board = _board(changes={"metrics": metrics, "protocol": "paper", "masking": "train"})
    ours, _, selected = markdown.render(board).partition("Test-selected, the paper's protocol")
    assert "0.9000" not in ours
    assert "| BPR | 0.9000 ± 0.0000 | 0.8000 ± 0.0000 |" in selected
    first = board.groups[0].rows[0]
    without = first.records[0].metrics.model_copy(update={"test_selected": None})
    first.records[0] = first.records[0].model_copy(update={"metrics": without})
    assert words.chosen_on_test(first) == [], "a mean over some seeds stands beside no mean over all"


def test_signs_of_markup_in_names_stay_text():
    board = write_board(FOLDER, {"BPR": 0.0}, title="A | *title* <b>", about="`code` | pipe")
    text = markdown.render(gather(FOLDER, board))
    assert r"A \| \*title\* \<b\>" in text
    assert r"\`code\` \| pipe" in text
    tex = latex.render(gather(FOLDER, write_board(FOLDER, {"BPR": 0.0}, title=r"50% of $x_1$ & \more {#}")))
    assert r"50\% of \$x\_1\$ \& \textbackslash{}more \{\#\}" in tex


def test_latex_compiles_where_there_is_a_latex(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    text = latex.render(_board(title=r"50% of $x_1$ & \more {#} ~^"))
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "a.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode()[-2000:]


def test_latex_is_balanced_and_marks_best_second_and_significance():
    text = latex.render(_board())
    for begin, end in ((r"\begin{table}", r"\end{table}"), (r"\begin{tabular}", r"\end{tabular}"), ("{", "}")):
        assert text.count(begin) == text.count(end) > 0
    rows = {}
    for line in text.splitlines():
        if line.endswith(r"\\") and "&" in line:
            rows.setdefault(line.split("&")[0].strip(), line)  # the first: published ones come after
    assert (rows["DiffMM"] + rows["LightGCN"]).count(r"\underline") == 2
    assert rows["DiffMM"].count(r"\textbf") + rows["LightGCN"].count(r"\textbf") == 2
    assert r"$^{\circ}$" in rows["DiffMM"] + rows["LightGCN"]
    assert r"$^{*}$" in rows["Pop"]
    columns = {len(re.split(r"(?<!\\)&", line)) for line in rows.values()}
    assert columns == {3}
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text


def test_csv_has_a_line_a_row_and_metric_with_all_tests():
    board = _board()
    lines = list(csv.DictReader(io.StringIO(table_csv.render(board))))
    assert len(lines) == 4 * 2
    by_key = {(line["row"], line["metric"]): line for line in lines}
    (group,) = board.groups
    tests = group.tests["recall@20"]
    line = by_key["Pop", "recall@20"]
    assert float(line["mean"]) == pytest.approx(group.rows[-1].cells["recall@20"].mean, rel=1e-5)
    found = tests.against_best["Pop"]
    assert float(line["vs_best_t_holm"]) == pytest.approx(found.t_holm, rel=1e-5)
    assert float(line["vs_best_wilcoxon_bh"]) == pytest.approx(found.wilcoxon_bh, rel=1e-5)
    assert float(line["vs_reference_difference"]) == pytest.approx(tests.against_reference["Pop"].difference, rel=1e-5)
    assert line["split_hash"] == digest("split")
    assert by_key[tests.best, "recall@20"]["vs_best_t"] == ""


def test_a_label_that_a_spreadsheet_would_take_for_a_formula_is_quoted():
    board = _board()
    board.groups[0].rows[0].label = "=1+1"
    board.groups[0].rows[0].modalities = ("@look",)
    board.groups[0].tests.clear()
    text = table_csv.render(replace(board, name="\t=2+2"))
    assert all(cell in text for cell in ("'=1+1", "'@look", "'\t=2+2"))


def test_slices_are_means_over_seeds():
    text = markdown.render(_board())
    assert "Recall@20, users by training interactions" in text
    assert "| DiffMM | 0.2500 | 0.2500 | 0.2500 | 0.2500 |" in text
    assert "without smell" in text
    assert "coverage of smell" in text


def test_two_runs_are_told_apart(capsys):
    a = write_run(FOLDER, "BPR-toy-s1-00000001")
    config = {**record()["config"], "learning_rate": 0.01, "n_layers": 2, "shuffle": False}
    metrics = {"valid": {"recall@20": 0.3}, "test": {"recall@20": 0.35}, "test_selected": None}
    versions = {"python": "3.11.7", "torch": "2.14.0"}
    data = {**record()["data"], "files": {"toy.inter": digest("new")}}
    other = {"config": config, "metrics": metrics, "versions": versions, "data": data}
    b = write_run(FOLDER, "BPR-toy-s1-00000002", **other, threads=4)
    assert main(["leaderboard", "--compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"config: learning_rate +0\.001 +0\.01", text)
    assert re.search(r"config: n_layers +\(not there\) +2", text)
    assert re.search(r"config: shuffle +True +False\n", text)
    assert re.search(r"threads +1 +4", text)
    assert re.search(r"versions: torch +2\.13\.0 +2\.14\.0", text)
    assert re.search(rf"data: file toy\.inter +\(not there\) +{digest('new')[:20]}", text)
    assert re.search(r"test recall@20 +0\.250000 +0\.350000 +\+0\.100000", text)
    assert "NOT COMPARABLE" not in text
    assert main(["leaderboard", "--compare", str(a), str(a)]) == 0
    assert "same configuration, data, code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"selection": "validation NDCG@10"}, "selection"),
        ({"config": {**record()["config"], "eval_args": {"mode": {"test": "uni100"}}}}, "candidates"),
        ({"masking": "train"}, "masking"),
    ],
)
def test_runs_that_share_no_table_are_not_comparable(changes, what):
    values = {metric: np.linspace(0, 1, 50) for metric in METRICS}
    a = write_run(FOLDER, "BPR-toy-s1-00000001", values)
    b = write_run(FOLDER, "BPR-toy-s1-00000002", values, **changes)
    text = describe(a, b)
    assert f"NOT COMPARABLE: the runs differ in {what}." in text and "paired t-test" not in text


def test_what_cannot_be_compared_or_rendered_ends_in_one_line(capsys):
    for arguments, told in (
        (["--compare", "missing.json", "missing.json"], "record missing.json: no such file"),
        (["--render", "nowhere"], "nowhere holds no board.json"),
        ([], "give one of: a board"),
        (["quick", "--render", "results"], "give one of: a board"),
    ):
        assert main(["leaderboard", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    Path("broken.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        describe(Path("broken.json"), Path("broken.json"))


def test_views_are_written_anew_only_when_something_has_changed():
    board = write_board(FOLDER, {"BPR": 0.0, "Pop": 0.1})
    assert render(FOLDER, only_if_changed=True) is not None
    written = {path: path.read_bytes() for path in [*FOLDER.glob("board.*"), *FOLDER.parent.rglob("index.html")]}
    assert len(written) == 6  # board.md, .csv, .tex, .json, the page, and the list of all boards
    assert render(FOLDER, only_if_changed=True) is None
    write_run(FOLDER, board.rows[0].runs[0].name, threads=2)
    assert render(FOLDER, only_if_changed=True) is not None
    assert (FOLDER / "board.csv").read_bytes() != written[FOLDER / "board.csv"]
    (FOLDER / "board.md").unlink()
    assert render(FOLDER, only_if_changed=True) is not None
    assert (FOLDER / "board.md").is_file()
    assert render(Path("results/nothing")) is None


def test_files_that_are_not_a_boards_are_left_alone():
    write_board(FOLDER, {"BPR": 0.0})
    other = FOLDER.parent / "mine" / "summary.json"
    other.parent.mkdir(parents=True)
    other.write_text('{"name": "mine"}', encoding="utf-8")
    page = FOLDER.parent / "index.html"
    page.write_text("my own page", encoding="utf-8")
    render(FOLDER)
    assert other.is_file() and page.read_text(encoding="utf-8") == "my own page"
    page.unlink()
    render(FOLDER)
    assert FOLDER.name in page.read_text(encoding="utf-8") and "mine" not in page.read_text(encoding="utf-8")
    (FOLDER / "summary.json").write_text("{}", encoding="utf-8")
    render(FOLDER)
    assert FOLDER.name in page.read_text(encoding="utf-8")


def test_the_words_say_which_rows_read_which_modalities_and_how_long_they_trained():
    write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0}, reference="BPR")
    found = manifest.read(FOLDER)
    assert found is not None
    for path in FOLDER.glob("BPR-toy-*.json"):
        content = records.read(path)
        assert content is not None
        records.write(path, {**content, "config": {**content["config"], "epochs": 50, "stopping_step": 9}})
    board = gather(FOLDER, found)
    for text in (markdown.render(board), latex.render(board)):
        assert "DiffMM: smell, text; the others: none" in text
        assert "BPR: at most 50 epochs, patience 9" in text
        assert "ot distinguishable from BPR in recall@20: no other row" in text
    paper = words.training(replace(board.groups[0], protocol="paper"))
    assert "BPR: 50 epochs, all run" in paper and "patience" not in paper


def test_the_words_say_how_long_all_rows_trained_and_which_were_cut_short():
    write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0})
    found = manifest.read(FOLDER)
    assert found is not None
    group = gather(FOLDER, found).groups[0]
    assert re.fullmatch(r"Training: at most \d+ epochs, patience \d+", words.training(group))
    first = group.rows[1].records[0]
    last = first.model_copy(update={"best_epoch": first.config["epochs"] - 1})
    group.rows[1].records[0] = last
    label, n_runs = group.rows[1].label, len(group.rows[1].records)
    assert words.training(group).endswith(f"; best in the last epoch allowed: {label} (1 of {n_runs} runs)")
    once = {"config": {**last.config, "epochs": 1}, "best_epoch": 0}
    group.rows[1].records[0] = last.model_copy(update=once)
    assert "last epoch" not in words.training(group), "a model that is fitted once has no other epoch"


def test_a_note_stands_once_with_all_its_rows():
    write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0})
    found = manifest.read(FOLDER)
    assert found is not None
    board = gather(FOLDER, found)
    for row in board.groups[0].rows:
        row.notes = ["made by code that was not committed"]
    for text in (markdown.render(board), latex.render(board), terminal.render(board)):
        assert text.count("made by code that was not committed") == 1
        assert "DiffMM, BPR: made by" in text


def test_the_words_name_rows_that_are_apart_and_call_the_most_the_others():
    group = _board().groups[0]
    rows = [replace(group.rows[0], label=label) for label in "ABCDE"]
    tail = "none begun after 45 minutes, on validation Recall@20 of split 0123456789ab"
    told = [
        "16 trials in under a minute",
        "16 trials in 24 minutes",
        "6 trials in 55 minutes",
        "16 trials in 9 minutes",
    ]
    for row, head in zip(rows, told, strict=False):
        row.tuned = f"{head}, {tail}"
    rows[4].tuned = "not tuned: it has no settings"
    group = replace(group, rows=rows)
    assert words.tuning(group) == (
        f"Tuning ({tail}): C: 6 trials in 55 minutes; E: not tuned: it has no settings; "
        "the others: 16 trials in under a minute to 24 minutes"
    )
    rows[2].tuned, rows[3].tuned = "not tuned: set as in A, table 2", "not tuned: set as in B, table 1"
    told = words.tuning(group)
    assert "C: not tuned: set as in A, table 2; D: not tuned: set as in B, table 1; E: not tuned" in told
    rows[2].tuned, rows[3].tuned = f"6 trials in 55 minutes, {tail}", f"16 more trials in 9 minutes, {tail}"
    assert "; D: 16 more trials in 9 minutes;" in words.tuning(group)
    rows[3].tuned = f"16 trials in 9 minutes, {tail}"
    rows[0].tuned = "8 trials, on another split"
    assert f"; C: 6 trials in 55 minutes, {tail}; " in words.tuning(group)
    group = replace(group, rows=[replace(group.rows[0], tuned="8 trials in 9 minutes, on a split")])
    assert words.tuning(group) == "Tuning (on a split): A: 8 trials in 9 minutes"
    group.rows[0].tuned = ""
    assert words.tuning(group) == ""


def test_the_words_say_where_the_two_tests_disagree():
    group = _board().groups[0]
    tests = group.tests["recall@20"]
    assert words.disagreement(group) == ""
    group.tests["recall@20"] = replace(
        tests, against_best={**tests.against_best, "Pop": replace(tests.against_best["Pop"], wilcoxon_holm=0.5)}
    )
    told = "t-test and Wilcoxon's, Holm-corrected, disagree over whether users tell the best from "
    assert words.disagreement(group) == f"{told}Pop in recall@20"
    tests = group.tests["ndcg@20"]
    apart = {label: replace(found, t_holm=0.01, wilcoxon_holm=0.5) for label, found in tests.against_best.items()}
    group.tests["ndcg@20"] = replace(tests, against_best=apart)
    assert words.disagreement(group) == f"{told}Pop in recall@20; {', '.join(apart)} in ndcg@20"


@pytest.mark.parametrize("view", [markdown, terminal])
def test_where_nothing_was_tested_no_mark_is_explained(view):
    board = _board()
    tested = "not distinguishable from"
    assert tested in view.render(board)
    board.groups[0].tests.clear()
    assert tested not in view.render(board) and "over seeds" in view.render(board)


def test_slices_say_how_many_users_they_are_a_mean_over():
    assert "| 0 (15) | 1-4 (15) |" in markdown.render(_board())


def test_latex_says_what_is_stale_missing_and_test_selected():
    board = write_board(FOLDER, {"BPR": 0.1, "Pop": 0.0}, changes={"code": {**record()["code"], "hash": digest("old")}})
    next(FOLDER.glob("Pop-toy-s1-*.json")).unlink()
    text = latex.render(gather(FOLDER, board))
    assert "stale: the code of BPR has changed since" in text and "1 of 3 runs are missing" in text
    assert "BPR$^{1}$" in text
    selected = {"epoch": 4, "metrics": {"recall@20": 0.777, "ndcg@20": 0.5}, "selected_on": "test Recall@20"}
    metrics = {**record()["metrics"], "test_selected": selected}
    board = write_board(FOLDER, {"BPR": 0.1}, changes={"metrics": metrics})
    text = latex.render(gather(FOLDER, board))
    assert "test-selected, the paper's protocol: no fair estimate" in text and "0.7770" in text


def test_sampled_ranking_is_told_and_has_a_table_of_its_own():
    sampled = {**record()["config"], "eval_args": {"mode": {"valid": "full", "test": "uni100"}}}
    found = write_board(FOLDER, {"DiffMM": 0.1, "BPR": 0.0})
    for path in FOLDER.glob("BPR-toy-*.json"):
        content = records.read(path)
        assert content is not None
        records.write(path, {**content, "config": {**sampled, "seed": content["seed"]}})
    full, other = gather(FOLDER, found).groups
    assert [row.label for row in full.rows] == ["DiffMM"] and [row.label for row in other.rows] == ["BPR"]
    assert "ranked among" not in dict(words.facts(full))
    assert dict(words.facts(other))["ranked among"] == "100 sampled items (uni100), which lifts every figure"
    one = {**content, "config": {**sampled, "metrics": ["Recall"]}}
    assert "ranked among 100 sampled items (uni100)" in render_runs([one])
    assert "ranked among" not in render_runs([{**one, "config": {**one["config"], "eval_args": None}}])
