"""What each address answers, and what none does."""

import gc
import os
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from fieldmark.errors import DataError, SettingError
from fieldmark.server.app import MOST_MEGABYTES, create_app
from fieldmark.server.look import clock, link
from fieldmark.studies.run import RunWriter

OURS = {"origin": "http://localhost"}


def test_the_folder_lists_its_runs(client):
    html = client.get("/").text
    assert 'href="/page/runs/toy-1"' in html
    assert 'href="/page/runs/toy-2"' in html
    assert "2 runs; the best run is runs/toy-2, with 95.0% top-1." in html


def test_a_run_has_the_page_of_the_report_with_its_charts(client):
    html = client.get("/page/runs/toy-1").text
    assert html.count("application/json") >= 2
    assert 'id="curves"' in html
    assert 'aria-current="page"' in html
    assert "Under way" not in html


def test_a_running_run_says_how_far_it_is(client, folder, make_run):
    with make_run(folder / "runs" / "toy-3", finish=False):
        for address in ("/", "/page/runs/toy-3"):
            html = client.get(address).text
            assert "Under way" in html
            assert '<progress max="100" value="40"' in html
            assert "Stage head, step 40 of 100" in html


def test_a_run_that_was_ended_early_says_so(folder, make_run, connect):
    make_run(folder / "runs" / "early", finish=False).fail("Others did better.", status="pruned")
    with connect(create_app(folder)) as client:
        for address in ("/", "/page/runs/early"):
            assert "ended early" in client.get(address).text


def test_a_folder_that_is_a_run_is_its_page(folder, connect):
    with connect(create_app(folder / "runs" / "toy-1")) as client:
        html = client.get("/").text
        assert 'id="curves"' in html
        assert client.get("/page/runs/toy-1").status_code == 404


def test_a_study_shows_its_states_its_cells_and_its_runs(fake, design, tmp_path, connect):
    from fieldmark.studies import control
    from fieldmark.studies.executor import LocalExecutor
    from fieldmark.studies.study import Study

    study = Study.create(tmp_path / "sizes", design())
    for number, _ in enumerate(LocalExecutor(f"{fake}:run_trials").run(study), start=1):
        if number == 3:
            control.ask(study.folder, "stop", "ada@finch")
    with connect(create_app(tmp_path)) as client:
        html = client.get("/page/sizes").text
        assert "3 finished" in html
        assert "9 waiting" in html
        assert "Stopped by ada@finch" in html
        assert "Which matters more, the photos&#39; size or the sketch&#39;s?" in html
        assert 'href="/page/sizes"' in client.get("/").text


def test_two_runs_are_compared_photo_by_photo(client):
    answer = client.get("/compare", params={"run": ["runs/toy-1", "runs/toy-2"]})
    told = " ".join(answer.text.split())
    assert "<bdi>runs/toy-1</bdi> (75.0%)" in told
    assert "<bdi>runs/toy-2</bdi> (95.0%)" in told
    assert "Real: runs/toy-2 names 20.0 points more photos rightly than runs/toy-1" in told
    assert "Classes that changed most" in told
    for name in ("runs/toy-1", "runs/toy-2"):  # whose curves are whose
        assert f"How {name} went" in told
    assert '<a href="/"><bdi>here</bdi></a>' in told  # the way back


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("", 400, "Choose two to compare; 0 were chosen."),
        ("?run=runs/toy-1", 400, "1 were chosen"),
        ("?run=runs/toy-1&run=nothing", 409, "no run and no cell `nothing`"),
        ("?run=runs/toy-1&run=../toy-1", 409, "no run and no cell `../toy-1`"),
    ],
)
def test_what_cannot_be_compared_says_why(client, query, status, told):
    answer = client.get(f"/compare{query}")
    assert answer.status_code == status
    assert told in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


def test_nothing_is_remembered_of_what_was_refused(client):
    """Else whoever asks for ever new addresses fills the memory."""
    for number in range(5):
        client.get("/compare", params={"run": ["runs/toy-1", f"runs/no-{number}"]})
    gc.collect()  # the refusals, with the frames they passed through
    assert len(client.app.state.pages._making) == 0


@pytest.fixture
def secret(folder):
    """A file and a run outside the folder, and links to them inside."""
    outside = folder.parent / "outside"
    with RunWriter.create(outside / "run", "seed: 1", {"class_names": ["SECRET"]}) as writer:
        writer.finish()
    (outside / "secret.txt").write_text("SECRET")
    (folder / "link").symlink_to(outside)
    (folder / "runs" / "linked").symlink_to(outside / "run")
    (folder / "runs" / "toy-1" / "secret.txt").symlink_to(outside / "secret.txt")
    return outside


@pytest.mark.parametrize(
    "address",
    [
        "/page/../outside/run",
        "/page/%2e%2e/outside/run",
        "/page/..%2foutside%2frun",
        "/page/..%5coutside%5crun",
        "/page/%252e%252e/outside/run",
        "/page//etc/passwd",
        "/page/link/run",
        "/page/runs/linked",
        "/page/runs/toy-1/secret.txt",
        "/page/runs/toy-1/manifest.json",
        "/page/runs/toy-1%00",
        "/page/",
        "/assets/../live.js",
        "/assets/..%2f..%2fapp.py",
        "/assets/page.html",
        "/secret.txt",
    ],
)
def test_nothing_outside_the_folder_and_nothing_but_pages_is_served(client, secret, address):
    answer = client.get(f"http://localhost{address}")
    assert answer.status_code == 404
    assert "SECRET" not in answer.text
    assert "root:" not in answer.text
    assert "SECRET" not in client.get("/").text


def test_photos_are_shown_only_from_where_they_may_be(folder, tmp_path, connect):
    photos = tmp_path / "photos"
    (photos / "crow").mkdir(parents=True)
    Image.new("RGB", (40, 40), (200, 30, 30)).save(photos / "crow" / "038.png")
    recipe = folder / "runs" / "toy-1" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("photos", str(photos)))
    with connect(create_app(folder)) as client:
        assert "data:image/jpeg" not in client.get("/page/runs/toy-1").text
    with connect(create_app(folder, photos=[photos])) as client:
        assert "data:image/jpeg" in client.get("/page/runs/toy-1").text
    inside = folder / "photos"
    inside.symlink_to(photos)  # a link in the folder to what lies outside it
    recipe.write_text(recipe.read_text().replace(str(photos), str(inside)))
    with connect(create_app(folder)) as client:
        assert "data:image/jpeg" not in client.get("/page/runs/toy-1").text


def attributes(html):
    """Names of all attributes of all elements, as a browser would read them."""
    found = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, given: found.update(name for name, _ in given)
    parser.feed(html)
    return found


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x="',
    "template": "{{ 7 * 7 }}{% include 'bar.html' %}",
    "path": "a..%2f..%2fetc%2fpasswd",
    "dots": "a....",
    "long": "n" * 250,
    "right to left": "\u202etxt.exe \u05d0\u05d1\u05d2",
    "control": "a\tb\x07c",
    "percent": "100%25 & <b>?#",
    "letters": "鳥 Ö",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_shown_harmlessly(folder, make_run, connect, name):
    name = name.replace("</script>", "<∕script>")  # no file's name has a slash
    hostile = make_run(folder / name, finish=False)
    hostile.fail(f"{name} </script><script>alert(2)</script>")
    with connect(create_app(folder)) as client:
        html = client.get("/").text
        page = client.get(link(name))
    assert page.status_code == 200
    for text in (html, page.text):
        assert "<script>alert" not in text
        assert not attributes(text) & {"onmouseover", "onerror", "style"}
        assert "49" not in re.findall(r"<h1>.*?</h1>", text)[0]
    title = re.search(r"<h1><bdi>(.*?)</bdi></h1>", page.text, re.DOTALL)[1]
    assert title.strip("\u2068\u2069")


def test_three_hundred_characters_are_shown(folder, make_run, connect):
    place = "/".join(["m" * 150, "n" * 150])
    make_run(folder / place)
    with connect(create_app(folder)) as client:
        assert place in client.get("/").text
        assert client.get(link(place)).status_code == 200


def test_a_name_that_is_no_unicode_has_a_page(folder, make_run, connect):
    name = os.fsdecode(b"caf\xe9")
    make_run(folder / name)
    with connect(create_app(folder)) as client:
        assert 'href="/page/caf%E9"' in client.get("/").text
        assert client.get(link(name)).status_code == 200


def test_a_hostile_question_and_hostile_classes_are_shown_harmlessly(folder, connect):
    text = "</script><script>alert(1)</script>"
    manifest = {"class_names": [text, "b"], "counts": {"train": 9, "val": 2}, "notes": [text]}
    with RunWriter.create(folder / "bad", "seed: 1", manifest) as writer:
        writer.record({"val/top1": 0.5, "train/loss": 1.0}, step=1, stage=text)
        writer.record({"val/top1": 0.6, "train/loss": 0.5}, step=2, stage=text)
        writer.finish()
    with connect(create_app(folder)) as client:
        html = client.get("/page/bad").text
    assert "<script>alert" not in html
    assert html.count("</script>") == html.count("<script")


def test_what_is_damaged_is_named_and_the_rest_is_shown(folder, connect):
    (folder / "runs" / "toy-1" / "manifest.json").write_text("{")
    with connect(create_app(folder)) as client:
        html = client.get("/").text
        assert "runs/toy-1 can&#39;t be read" in html
        assert 'href="/page/runs/toy-2"' in html
        assert client.get("/page/runs/toy-1").status_code == 404


def test_a_reader_chooses_the_language_and_it_stays(client):
    assert '<html lang="en">' in client.get("/").text
    chinese = client.get("/?lang=zh")
    assert '<html lang="zh-Hans">' in chinese.text
    assert '<html lang="zh-Hans">' in client.get("/").text
    assert '<html lang="en">' in client.get("/?lang=en").text
    assert '<html lang="en">' in client.get("/?lang=klingon").text


def test_a_browser_that_prefers_chinese_gets_it(folder, connect):
    with connect(create_app(folder), headers={"accept-language": "zh-CN,zh;q=0.9"}) as client:
        assert '<html lang="zh-Hans">' in client.get("/").text


def test_assets_are_asked_for_once(client):
    for name in ("live.js", "live.css", "page.js", "page.css", "vega.js", "predict.js"):
        answer = client.get(f"/assets/{name}")
        assert answer.status_code == 200
        kind = "javascript" if name.endswith("js") else "css"
        assert kind in answer.headers["content-type"]
        again = client.get(f"/assets/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        assert not again.content
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_a_photo_is_named(folder, connect):
    seen = []

    def predict(photo):
        seen.append(photo)
        return [("raven <b>", 0.75), ("crow", 0.25)]

    with connect(create_app(folder, predict)) as client:
        page = client.get("/predict").text
        assert 'src="/assets/predict.js"' in page
        assert 'href="/predict"' in client.get("/").text
        answer = client.post("/predict", content=b"pixels", headers=OURS)
    assert answer.json() == [
        {"name": "raven <b>", "probability": 0.75},
        {"name": "crow", "probability": 0.25},
    ]
    assert answer.headers["content-type"] == "application/json"
    assert seen == [b"pixels"]


def test_a_photo_too_large_or_broken_says_so(folder, connect):
    def predict(photo):
        raise DataError("What was given can't be read as a photo.")

    large = b"x" * ((MOST_MEGABYTES << 20) + 1)
    with connect(create_app(folder, predict)) as client:
        answer = client.post("/predict", content=large, headers=OURS)
        assert (answer.status_code, answer.text) == (413, "A photo has at most 32 MB.\n")
        answer = client.post("/predict", content=b"x", headers=OURS)
        assert (answer.status_code, "can't be read" in answer.text) == (422, True)
        strange = {"origin": "http://evil.example"}
        assert client.post("/predict", content=b"x", headers=strange).status_code == 403


def test_without_a_model_there_is_nothing_to_name_photos(client):
    assert client.get("/predict").status_code == 404
    assert client.post("/predict", content=b"x", headers=OURS).status_code == 404
    assert "/predict" not in client.get("/").text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"There is no folder .*nowhere"):
        create_app(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "00:00:00"), (59.9, "00:00:59"), (3661, "01:01:01"), (-5, "00:00:00")],
)
def test_a_clock(seconds, shown):
    assert clock(seconds) == shown


PAIR = """\
name: sizes
question: Does the sketch's size matter?
base: base
seeds: 2
axes:
  - {key: pooling.sketch_dim, values: [1024, 8192]}
"""


def test_two_cells_of_a_study_are_compared_with_all_their_seeds(
    design, tmp_path, make_run, connect
):
    from fieldmark.studies.executor import work
    from fieldmark.studies.study import Study
    from fieldmark.studies.trial import Outcome

    def run_trials(trials):
        for trial in trials:
            right = 24 if trial.recipe.pooling.sketch_dim == 1024 else 39
            make_run(trial.folder, right=right, seed=trial.recipe.seed)
            metrics = {"out_of_fold/top1": right / 40}
            yield Outcome(trial.folder, "finished", metrics, seconds=1)

    study = Study.create(tmp_path / "sizes", design(PAIR))
    assert len(list(work(study, run_trials))) == 4
    small, large = (f"sizes/cells/{cell.hash}" for cell in study.cells)
    with connect(create_app(tmp_path)) as client:
        offered = client.get("/page/sizes").text
        assert f'<option value="{small}" selected>sketch length 1024</option>' in offered
        assert f'<option value="{large}">sketch length 8192</option>' in offered
        answer = client.get("/compare", params={"run": [small, large]})
        told = " ".join(answer.text.split())
        assert "sketch length 8192 names 37.5 points more photos rightly" in told
        assert "2 seeds each" in told
        linked = client.get("/page/sizes").text.split('class="number value"><a href="')[1]
        assert client.get(linked.split('"')[0]).status_code == 200
        lost = client.get("/compare", params={"run": [small, "sizes/cells/nothing"]})
        assert (lost.status_code, "has no finished run" in lost.text) == (409, True)
