"""One picture of each kind, light and dark, whatever the names in it; drawn without a browser."""

import io
import re

import altair as alt
import numpy as np
import pytest
import vl_convert
from altair.utils.schemapi import validate_jsonschema
from PIL import Image

from fieldmark.charts import picture
from fieldmark.charts.calibration import calibration_data
from fieldmark.charts.confusion import classes_data, matrix_data, pairs_data
from fieldmark.charts.cost import cost_data, stages_data
from fieldmark.charts.curves import curves_data
from fieldmark.charts.draw import DRAWINGS, draw
from fieldmark.charts.forest import forest_data
from fieldmark.charts.grid import Point, axis_data, heat_data
from fieldmark.charts.look import THEMES, themed
from fieldmark.charts.picture import missing_fonts, save_chart
from fieldmark.charts.rates import amount_data, rates_data
from fieldmark.errors import SettingError
from fieldmark.language import Words
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.verdict import Verdict

NAMES = ["鳥", "Öhreule", "<script>alert(1)</script>", "a" * 300, "ציפור", "back\\slash 'n' \"q\""]


def test_a_chart_drawn_by_itself_has_the_look_of_the_house():
    plain = alt.Chart(alt.InlineData([{"a": 1}])).mark_point().encode(x="a:Q").to_dict()
    assert "config" in plain
    assert themed(plain, "light")["config"]["axis"]["titleAnchor"] == "start"


AMOUNTS = [(0.25, 0.4, 0.3, 0.5), (0.5, 0.5, 0.4, 0.6), (1, 0.55, 0.5, 0.6)]


def figures(folder):
    points = [
        Point({"size": name, "dim": n}, 0.5 + n / 20 + len(name) / 2000, 0.4, 0.7, 0.01, 2)
        for name in NAMES
        for n in (1, 2, 3)
    ]
    seen = Verdict("cannot tell", 0.01, -0.02, 0.04, 0.2, "recipes", 100, (2, 2), 0.01)
    confusion = np.random.default_rng(0).integers(0, 6, (6, 6)) + 9 * np.eye(6, dtype=int)
    with RunWriter.create(folder, "", {"class_names": NAMES}) as writer:
        for step in range(0, 50, 5):
            found = {"val/loss": 2 - step / 40, "train/loss": 1.8 - step / 40, "train/lr": 1.0}
            writer.record(found, step=step, stage="head" if step < 30 else "all", epoch=step / 5)
    record = {"seeds": [0, 1], "lr": [0.01, 0.1, 1, 10], "loss": [[2, 1.5, 1, 9], [2, 1.6, 1.1, 3]]}
    sure = np.random.default_rng(1).uniform(0.2, 1, 300)
    return [
        heat_data(points, ("size", "dim"), "val/top1"),
        axis_data(points, "size", "val/top1"),
        forest_data([(name, seen) for name in NAMES]),
        pairs_data([(a, b, 2, 1) for a in NAMES for b in NAMES if a < b]),
        matrix_data(NAMES, confusion),
        classes_data(NAMES, confusion),
        calibration_data(sure, sure > np.random.default_rng(2).uniform(0, 1, 300)),
        cost_data("val/top1", [(name, 1 + n, 0.5 + n / 50) for n, name in enumerate(NAMES)]),
        stages_data([("head", 2.0, 3.0), ("all", 1.0, 20.0)]),
        rates_data("head", {**record, "band": [0.05, 2]}, used=1.0),
        amount_data("val/top1", AMOUNTS, [(2, 0.6, 0.5, 0.7)]),
        curves_data(Run(folder)),
    ]


@pytest.fixture(scope="module")
def drawable(tmp_path_factory):
    return {type(data): data for data in figures(tmp_path_factory.mktemp("figures") / "run")}


def test_every_kind_of_figure_is_here(drawable):
    assert drawable.keys() == DRAWINGS.keys()


@pytest.mark.parametrize("kind", DRAWINGS, ids=lambda kind: kind.__name__)
def test_a_drawing_is_what_vega_lite_understands(drawable, kind):
    """What `draw` gives is held to the schema, since it leaves that to this test."""
    spec, schema = draw(drawable[kind], Words("en")), alt.load_schema()
    assert validate_jsonschema(spec, schema, raise_error=False) is None
    no_mark = spec | {"mark": "scribble", "encoding": {}}
    assert validate_jsonschema(no_mark, schema, raise_error=False) is not None


@pytest.mark.parametrize("kind", DRAWINGS, ids=lambda kind: kind.__name__)
def test_a_picture_of_each_kind_has_its_colours(drawable, kind, tmp_path):
    spec = draw(drawable[kind], Words("zh"))
    for theme in THEMES:
        assert "var(--" not in str(themed(spec, theme))
    assert save_chart(spec, tmp_path / "x.png", "dark") == list(missing_fonts(str(spec)))
    pixels = np.asarray(Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())).convert("RGB"))
    paper = [int(THEMES["dark"]["paper"][i : i + 2], 16) for i in (1, 3, 5)]
    assert (pixels[0] == paper).all()
    ink = (pixels != paper).any(axis=2).mean()
    assert 0.005 < ink < 0.9
    assert min(pixels.shape[:2]) > 150
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_each_pair_of_look_alikes_has_the_same_room():
    def height(count):
        data = pairs_data([("owl", str(number), 2, 1) for number in range(count)])
        return draw(data, Words("en"))["height"]

    assert height(0) == height(1) > 0
    assert height(5) == 5 * height(1)


def test_a_letter_no_font_has_is_named_with_what_to_install(monkeypatch):
    assert list(missing_fonts("Ö and plain letters")) == []
    monkeypatch.setattr(picture, "_drawn", lambda letter: b"a box")
    (line,) = missing_fonts("Ö 鳥類")
    assert line == (
        "No font here can draw `類` (Cjk), so pictures lack such letters. "
        "Install one: apt-get install fonts-noto-cjk"
    )


def test_a_bird_in_chinese_shows():
    """Needs Debian's fonts-noto-cjk, which `.ci/run` installs."""
    assert list(missing_fonts("鳥 鸟 ö Ö é")) == []


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(SettingError, match=r"saved as `.png` or `.svg`, got `.*x.pdf`"):
        save_chart({}, tmp_path / "x.pdf")


@pytest.mark.parametrize("most", [1, 2, 3, 14])
def test_mistakes_are_counted_in_whole_numbers(most):
    data = pairs_data([("owl", "kite", most - 1, 1), ("owl", "wren", 1, 0)])
    svg = vl_convert.vegalite_to_svg(draw(data, Words("en")))
    counts = re.findall(r">(\d+)</text>", svg)
    assert counts[0] == "0"
    assert len(set(counts)) == len(counts) > 1
