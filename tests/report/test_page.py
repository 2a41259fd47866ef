"""Pages hold every section in its order, are small, load nothing, and show any name unharmed."""

import html
import io
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from tests.report.conftest import CLIMBS, LONG, NAMES, RECIPE, RIGHT_TO_LEFT, SCRIPT, STUDY
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.diagnosis.study_advice import study_command
from fieldmark.errors import RecordError, SettingError
from fieldmark.language import LANGUAGES, Words
from fieldmark.metrics import wilson_interval
from fieldmark.report.content import (
    folder_page,
    overview,
    page_of,
    run_page,
    state_of_all,
    study_page,
)
from fieldmark.report.page import Thumbnail
from fieldmark.report.render import environment, render
from fieldmark.studies.catalog import Catalog, StudySummary
from fieldmark.studies.design import Design
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study
from fieldmark.study_report import show

OF_A_STUDY = (
    *("next", "grid", "effects", "curves", "findings", "lookalikes", "mistakes"),
    *("uncertain", "photos", "cost", "origin", "expected"),
)
OF_A_RUN = (
    *("curves", "findings", "lookalikes", "mistakes", "uncertain", "photos", "cost", "origin"),
)


class Reader(HTMLParser):
    """What a browser would make of a page: elements with attributes, and the text seen."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.inside = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside[-1:]):
            self.text.append(data)

    def ids(self, wanted):
        return [found["id"] for tag, found in self.elements if tag == wanted and "id" in found]


def test_a_study_has_every_section_in_its_order(page, text):
    assert tuple(section.id for section in page.sections) == OF_A_STUDY
    read = Reader(text["en"])
    assert tuple(read.ids("section")) == OF_A_STUDY
    assert len(read.ids("tr")) == 12
    figures = read.ids("figure")
    assert len(figures) == len(set(figures)) >= 9
    assert page.title == "Does <b>size</b> matter, & the sketch?"
    assert (page.state, page.progress) == ("finished", (24, 24))


def test_a_run_has_every_section_in_its_order(run):
    page = run_page(run)
    found = tuple(section.id for section in page.sections if section.id != "next")
    assert found == OF_A_RUN
    assert run_page(run).answer[0].values["value"] == run.series("val/top1")[1][-1]


def test_a_study_that_has_not_begun_has_a_page(tmp_path, photos):
    design = Design.read(STUDY, lambda _: RECIPE % photos, name="study.yaml")
    page = study_page(Study.create(tmp_path / "new", design))
    assert (page.state, page.progress) == ("waiting", (0, 24))
    assert "There is no result yet." in render(page)
    assert "还没有结果" in render(page, lang="zh")


@pytest.mark.parametrize("name", ["sizes", "a: `whoami`"])
def test_runs_that_a_changed_study_no_longer_asks_for_are_told_apart(study, tmp_path, photos, name):
    """As after a change of the base, or of Fieldmark: the cells have other hashes."""
    shutil.copytree(study.folder, tmp_path / name)
    design = Design.read(STUDY, lambda _: RECIPE % photos, ["stages.head.lr=2"], name="study.yaml")
    page = study_page(changed := Study.create(tmp_path / name, design))
    first, told, again = (Words("en")(sentence) for sentence in page.answer)
    assert first == "There is no result yet."
    assert told.startswith("Not counted: 24 runs in this folder, of recipes or seeds that the")
    command = study_command(changed)
    assert shlex.split(command)[-4:] == [
        "stages.head.lr=2",
        f"base={tmp_path / name}/base.yaml",
        "--out",
        str(tmp_path / name),
    ]
    assert again == f"To run what is asked now: `{command}`"
    if name == "sizes":
        assert f"<code>{command}</code>" in render(page)
    assert "curves" not in [section.id for section in page.sections]  # they are no answer
    console = Console(file=io.StringIO(), width=1000)
    show(console, changed, "table")
    assert told in console.file.getvalue()
    assert f"To run what is asked now: {command}\n" in console.file.getvalue()


@pytest.mark.parametrize(
    ("change", "runs"), [("axes.0.values=[%s]", "8 runs"), ("seeds=1", "12 runs")]
)
def test_what_was_taken_out_of_a_study_is_told(study, tmp_path, photos, change, runs):
    shutil.copytree(study.folder, tmp_path / "sizes")
    values = study.design.file.axes[0].values
    change = change.replace("%s", ", ".join(map(str, values[1:])))
    design = Design.read(STUDY, lambda _: RECIPE % photos, [change], name="study.yaml")
    changed = Study.create(tmp_path / "sizes", design)
    console = Console(file=io.StringIO(), width=1000)
    show(console, changed, "table")
    assert f"Not counted: {runs} in this folder, of recipes or seeds" in console.file.getvalue()
    assert "To run what is asked now" not in console.file.getvalue()  # all of it is there


def test_a_folder_whose_study_is_not_done_is_not_finished(study, tmp_path, photos):
    shutil.copytree(study.folder.parents[1], tmp_path / "home")
    place = tmp_path / "home" / "studies" / "sizes"
    for key, cells, progress in (("seeds=3", 36, (1, 2)), ("seeds=2", 24, (2, 2))):
        design = Design.read(STUDY, lambda _: RECIPE % photos, [key], name="study.yaml")
        Study.create(place, design)
        page = page_of(tmp_path / "home")
        assert page.state == ("finished" if cells == 24 else "waiting")
        assert page.progress == progress
        assert page.sections[0].rows[0].asked == cells


def test_a_search_that_still_proposes_is_not_finished(tmp_path, photos):
    """Between two batches every run it knows has ended."""
    axes = "[{key: stages.head.lr, space: {low: 0.1, high: 1}}]"
    asked = [f"axes={axes}", "search={trials: 6, sampler: tpe}", "expect=null"]
    design = Design.read(STUDY, lambda _: RECIPE % photos, asked, name="study.yaml")
    Study.create(tmp_path / "search", design)
    page = page_of(tmp_path)
    (row,) = page.sections[0].rows
    assert (page.state, row.asked, row.is_done) == ("waiting", 12, False)
    assert row.seconds_left is None  # and not 0, which is done


def test_a_folder_lists_its_runs_and_studies(study):
    home = study.folder.parents[1]
    page = page_of(home)
    studies, runs = page.sections
    assert [row.place for row in runs.rows] == ["runs/one"]  # those of cells are the study's own
    assert [row.place for row in studies.rows] == ["studies/sizes"]
    assert runs.rows[0].top1 == Run(home / "runs" / "one").series("val/top1")[1][-1]
    assert (runs.best, len(runs.rows[0].curve)) == ("runs/one", 5)
    assert studies.rows[0].best == max(study.objective(cell) for cell in study.cells)
    assert (page.kind, page.state, page.progress) == ("folder", "finished", (2, 2))
    told = Words("en")(page.answer[0])
    assert told.startswith("1 run and 1 study; the best run is runs/one, with ")
    html = render(page)
    assert "Does &lt;b&gt;size&lt;/b&gt; matter" in html
    low, high = wilson_interval(runs.rows[0].top1, 60)
    assert f"{low:.1%} – {high:.1%}" in html


@pytest.mark.parametrize(
    ("runs", "studies", "told"),
    [(0, 0, "There is no run and no study here yet."), (2, 0, "2 runs."), (0, 1, "1 study.")],
)
def test_what_is_not_there_is_not_counted(run, runs, studies, told):
    catalog = Catalog(run.folder)
    catalog.look()
    seen, each = catalog.seen(), replace(catalog.runs["."], status="failed")
    seen = replace(seen, runs={f"{n}": replace(each, place=f"{n}") for n in range(runs)})
    study = StudySummary("s", "?", "val/top1", {}, None, None, None)
    seen = replace(seen, studies={f"{n}": study for n in range(studies)})
    assert Words("en")(overview(seen).answer[0]) == told


def test_a_damaged_run_is_told_with_the_reason(tmp_path, run):
    (run.folder / "manifest.json").write_text('{"format": 1}')
    page = folder_page(tmp_path)
    assert Words("en")(page.answer[1]) == "runs/one can't be read: its records lack 'started'"


@pytest.mark.parametrize(
    ("states", "done", "expected"),
    [
        ((), True, "waiting"),
        (("finished", "failed"), True, "finished"),
        (("finished", "pruned"), True, "finished"),  # of a study whose pruner did its work
        (("failed", "pruned"), True, "failed"),
        (("finished", "waiting"), False, "waiting"),
        (("waiting", "running", "failed"), False, "running"),
    ],
)
def test_several_states_come_to_one(states, done, expected):
    assert state_of_all(states, done=done) == expected


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"holds no run and no study\. Name a folder that"):
        folder_page(tmp_path)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_study_of_twelve_cells_is_small_and_loads_nothing(text, lang):
    assert len(text[lang].encode()) < 3_000_000
    read = Reader(text[lang])
    links = [value for _, found in read.elements for key, value in found.items() if key == "href"]
    sources = [found["src"] for _, found in read.elements if "src" in found]
    assert all(link.startswith("#") for link in links)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not [tag for tag, _ in read.elements if tag in {"link", "iframe", "object", "base"}]


def test_the_policy_allows_these_scripts_and_no_other(run):
    read = Reader(render(run_page(run)))
    (policy,) = [
        found["content"]
        for _, found in read.elements
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    handlers = [key for _, found in read.elements for key in found if key.startswith("on")]
    assert not handlers
    assert not [found for _, found in read.elements if "style" in found]


def test_live_the_page_names_its_files_and_leaves_the_policy_to_the_server(run):
    page = render(run_page(run), live=True)
    assert "Content-Security-Policy" not in page
    assert '<script src="/assets/vega.js" defer></script>' in page
    assert len(page) < len(render(run_page(run))) - 500_000


def test_a_script_in_a_name_stays_text(text):
    page = text["en"]
    assert SCRIPT not in page
    assert page.count("<script>") == 2  # ours
    assert "<b>size</b>" not in page
    assert "<img src=x" not in page
    read = Reader(page)
    assert any(SCRIPT in text for text in read.text)
    assert "Does <b>size</b> matter, & the sketch?" in read.text


def test_a_photo_whose_name_leads_out_of_its_folder_is_not_read(run, photos):
    outside = photos.parent.parent / "etc"
    outside.mkdir(exist_ok=True)
    (outside / "passwd").write_bytes((photos / "class-0/000.jpg").read_bytes())
    shown = [
        photo
        for section in run_page(run).sections
        if section.id in {"mistakes", "uncertain"}
        for photo in section.photos
    ]
    assert any(photo.jpeg for photo in shown)
    assert not any(photo.jpeg for photo in shown if photo.name == CLIMBS)


def test_a_long_name_is_shown_whole_and_may_break(text):
    page = text["en"]
    assert LONG in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "overflow-wrap: anywhere" in style


def test_a_name_may_break_where_its_words_are_joined():
    break_up = environment().filters["breakable"]
    assert break_up("023.Brandt_<b>-x.jpg") == "023.Brandt_&lt;b&gt;-<wbr>x.jpg"
    assert break_up("../x") == "../x"
    assert Thumbnail("a/b.jpg", "a", "a", 1.0).file == "b.jpg"
    assert Thumbnail("a/", "a", "a", 1.0).file == "a/"


def test_a_study_says_whose_photos_they_are(text):
    for lang, told in {"en": "by the best cell's first run", "zh": "最好组合的第一次训练"}.items():
        of_photos = text[lang][text[lang].index('id="lookalikes"') :]
        assert told in html.unescape(of_photos[:600])


def test_what_runs_from_right_to_left_keeps_to_itself(text):
    page = text["en"]
    for found in re.finditer(re.escape(html.escape(RIGHT_TO_LEFT)), page):
        before = page[: found.start()]
        isolated = (
            before.endswith(("<bdi>", "\u2068", 'alt="', 'title="')) or '":"' in before[-400:]
        )
        assert isolated, before[-80:]


def test_a_file_that_can_not_be_read_is_told_not_raised(run):
    (run.folder / "recipe.yaml").write_text("{not: yaml")
    (run.folder / "predictions" / "val.parquet").write_bytes(b"torn")
    page = run_page(run)
    assert "lookalikes" not in [section.id for section in page.sections]
    assert "{not: yaml" in Reader(render(page)).text


def test_where_the_model_looked_is_laid_over_the_photo(run):
    key = "class-1/001.jpg"
    shares = np.zeros((1, 4, 4), np.float16)
    shares[0, 1, 2] = 3
    np.savez(run.folder / "predictions" / "looked.npz", paths=np.array([key]), shares=shares)
    shown = [
        photo
        for section in run_page(run).sections
        if section.id in {"mistakes", "uncertain"}
        for photo in section.photos
    ]
    assert {photo.name for photo in shown if photo.looked} <= {key}


def test_a_page_loads_no_torch(run):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fieldmark.report.content import page_of\nfrom fieldmark.report.render import render\n"
        f"render(page_of(Path({str(run.folder)!r})))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_writes_a_page(run, tmp_path):
    done = CliRunner().invoke(app, ["report", str(run.folder), "--lang", "zh"])
    assert done.exit_code == 0, done.output
    written = (run.folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh-Hans">' in written
    assert "report.html" in done.stdout.replace("\n", "")
    wrong = CliRunner().invoke(app, ["report", str(run.folder), "--lang", "fr"])
    assert isinstance(wrong.exception, SettingError)
    assert "--lang must be one of en, zh, got fr" in str(wrong.exception)
    wrong = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(tmp_path / "x.pdf")])
    assert "A page is an .html file" in str(wrong.exception)


def test_all_names_are_there(text):
    shown = " ".join(Reader(text["en"]).text)
    assert [name for name in NAMES if name not in shown] == []
