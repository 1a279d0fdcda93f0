import matplotlib
import numpy as np
import pytest
from html_page import Page
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from kbl.report import evaluation_figure, evaluation_html
from kbl.report.style import ADAPTIVE, ADVERSARIAL, CLEAN, INK

pytestmark = pytest.mark.once


def test_html_has_the_tables_and_the_warnings(evaluation):
    page = Page(evaluation_html(evaluation))
    rows = [[cell for cell in row if cell] for row in page.cells]
    assert ["Clean", "98.1 %", "96.0–99.1 %"] in rows
    assert ["APGD-100, CE", "0.15", "100", "1", "72.5 %", "67.7–76.9 %", "61 + 60", "18.2 s"] in rows
    assert ["C&W L2", "1,000", "median ℓ2 0.831", "5,400 + 5,391", "3 min 25 s"] in rows
    assert ["Worst case of the transferred", "0.15", "84.7 %", "80.6–88.1 %"] in rows
    assert "13 checks, 1 warning: read before quoting" in page.text
    assert "What to do: Quote the worst case" in page.text
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.attributes("th"))


def test_each_row_has_a_cell_for_each_column(evaluation):
    page = Page(evaluation_html(evaluation))
    assert page.widths == [8] * len(page.widths)


def test_html_is_a_fragment_with_its_styles_inline_and_texts_escaped(evaluation):
    evil = "<script>alert(1)</script>\"'&"
    evaluation["attacks"][0]["label"] = evil
    evaluation["warnings"] = [evil, {"name": evil, "message": evil, "remedy": evil}]
    page = Page(evaluation_html(evaluation))
    assert not {"html", "head", "body", "style", "script", "link"} & {tag for tag, _ in page.tags}
    assert page.text.count(evil.replace("_", " ")) == 5
    assert not any("class" in attributes for _, attributes in page.tags)


def test_html_of_the_first_schema():
    page = Page(evaluation_html({"examples": 10, "clean": 0.5, "attacks": [], "warnings": []}))
    assert page.cells == [["Attack", "Accuracy", "95 % interval"], ["Clean", "50.0 %", "23.7–76.3 %"]]
    assert "no warnings" in page.text
    assert "read before" not in page.text


def test_the_figure_draws_a_dot_and_an_interval_for_each_accuracy(evaluation):
    (axes,) = evaluation_figure(evaluation).axes
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    dots = {
        labels[round(y)]: (x, line)
        for line in axes.lines
        if line.get_marker() == "o"
        for x, y in [line.get_xydata()[0]]
    }
    assert labels[3:5] == ["AutoAttack standard", "↳ APGD-100, CE"]
    assert labels[-3:] == ["PGD-40 ×5 (transferred)", "FGSM (transferred)", "Worst case of the transferred"]
    assert dots["PGD-40 ×5"][0] == pytest.approx(100 * 262 / 360)
    assert dots["PGD-40 ×5 (transferred)"][0] == pytest.approx(85.0)
    colors = {label: to_hex(line.get_color()).upper() for label, (_, line) in dots.items()}
    assert (colors["Clean"], colors["FGSM"]) == (CLEAN, ADVERSARIAL)
    assert (colors["Worst case per example"].lower(), colors["FGSM (transferred)"]) == (INK, ADAPTIVE)
    assert dots["↳ APGD-100, CE"][1].get_markerfacecolor() == "white"
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() != "o"]
    assert_allclose(spans[0], [96.0414, 99.0550], atol=1e-3)  # Wilson, 353 of 360
    assert len(spans) == len(dots) == len(labels) - 1  # no accuracy of the minimum-norm attack is drawn
    assert "C&W L2" not in dots
    assert "median ℓ2 0.831" in [text.get_text() for text in axes.texts]
    assert axes.get_title(loc="left") == "Accuracy at ε = 0.15"


def test_the_figure_survives_dollars_and_missing_numbers():
    attack = {"label": "$x_1$", "accuracy": None}
    before = dict(matplotlib.rcParams)
    figure = evaluation_figure({"examples": None, "clean": 0.5, "robust": None, "attacks": [attack]})
    assert figure._repr_png_().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert axes.get_yticklabels()[1].get_text() == r"\$x_1\$"
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.isfinite(dots[0].get_xdata()).all()
    assert len(dots) == 1
    assert dict(matplotlib.rcParams) == before
