import json
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from html_page import Page

from kbl import files
from kbl.errors import UserError
from kbl.report import html, write
from kbl.report.folder import read

pytestmark = pytest.mark.once

PNG = b"\x89PNG\r\n\x1a\n"
RECIPE = """name = "digits-atblr"
description = "ATBLR on digits"

[method]
name = "atblr"

[method.attack]
epsilon = "8/255"
"""
ENVIRONMENT = {
    "kbl": "0.1.0",
    "backend": "jax",
    "backend_version": "0.7",
    "device": "cpu",
    "started": "2026-03-14T09:21:07+00:00",
    "seconds": 200.0,
}
EVALUATION = {
    "schema": 1,
    "backend": "jax",
    "examples": 1000,
    "clean": 0.9,
    "robust": 0.4,
    "attacks": [
        {"name": "fgsm", "label": "FGSM", "parameters": {"epsilon": 0.2}, "accuracy": 0.6, "seconds": 1},
        {"name": "pgd", "label": "PGD", "parameters": {"epsilon": 0.2, "steps": 40}, "accuracy": 0.45},
    ],
    "warnings": [],
    "versions": {"keras": "3.14"},
    "epsilon_curve": [{"epsilon": 0.1, "accuracy": 0.7}, {"epsilon": 0.2, "accuracy": None}],
}
HISTORY = "epoch,loss,clean_accuracy,clean_lkd,adversarial_lkd,val_loss\n1,2,0.5,9,9,\n2,1,0.75,4,6,\n"


def text_of(path):
    return path.read_text(encoding="utf-8")


def save(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        suffix = {"history": "csv", "batches": "csv", "recipe": "toml"}.get(name, "json")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def save_gallery(folder, names=("zero", "one")):
    x = np.full((2, 8, 8, 1), 0.5, np.float32)
    np.savez(
        folder / "gallery.npz",
        x=x,
        x_adv=x + np.float32(0.2),
        y=np.array([0, 1]),
        prediction=np.array([0, 1]),
        prediction_adv=np.array([1, 1]),
        confidence=np.array([0.9, 0.9]),
        confidence_adv=np.array([0.6, 0.6]),
        class_names=np.array(names),
    )


@pytest.fixture(autouse=True)
def _draw_small(monkeypatch):
    monkeypatch.setattr(html, "_DOTS_PER_INCH", 30)


def save_run(folder):
    save(folder, recipe=RECIPE, environment=ENVIRONMENT, evaluation=EVALUATION, history=HISTORY)
    save_gallery(folder)
    return folder


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the page of a whole run; its folder is for reading only."""
    return write(save_run(tmp_path_factory.mktemp("written") / "run"))


def test_the_page_has_every_section(written):
    page = Page(text_of(written))
    assert (written.parent.name, written.name) == ("run", "report.html")
    assert page.headings == [
        "Accuracy",
        "Training",
        "Likelihood of the features",
        "Examples",
        "Accuracy against ε",
        "Environment",
        "Recipe",
        "How to reproduce",
    ]
    assert "digits-atblr" in page.text
    assert "ATBLR on digits" in page.text
    assert "jax 0.7 · cpu · started 2026-03-14 09:21 UTC · took 3 min 20 s" in page.text
    assert "kbl run recipe.toml" in page.text
    assert RECIPE in page.text
    assert "No warnings." in page.text


def test_the_headline_gives_three_numbers_with_their_intervals(written):
    text = Page(text_of(written)).text
    assert "Clean accuracy90.0 %95 % interval 88.0–91.7 %" in text
    assert "Robust accuracy40.0 %worst case of 2 attacks95 % interval 37.0–43.1 %" in text
    assert "Test examples1,000" in text


def test_the_table_has_rows_and_scopes(written):
    page = Page(text_of(written))
    rows = [[cell for cell in row if cell] for row in page.cells]
    assert ["Clean", "90.0 %", "88.0–91.7 %"] in rows
    assert ["FGSM", "0.2", "60.0 %", "56.9–63.0 %", "1.0 s"] in rows
    assert ["PGD", "0.2", "40", "45.0 %", "41.9–48.1 %", "—"] in rows
    assert ["Worst case per example", "0.2", "40.0 %", "37.0–43.1 %"] in rows
    assert ["evaluation.keras", "3.14"] in rows
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.attributes("th"))


def test_the_pictures_are_in_the_page_and_beside_it(written):
    page = Page(text_of(written))
    inside = [
        b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.attributes("img")
    ]
    names = ("training", "likelihood", "gallery", "epsilon")
    assert inside == [(written.parent / "figures" / f"{name}.png").read_bytes() for name in names]
    assert all(png.startswith(PNG) for png in inside)
    alts = [image["alt"] for image in page.attributes("img")]
    assert "clean accuracy 75.0 %" in alts[0]
    assert "clean 4, adversarial 6" in alts[1]
    assert "2 of the clean images are classified right; 1 of the adversarial ones wrong" in alts[2]
    assert "70.0 % at 0.1." in alts[3]


def test_the_curve_over_epsilon_says_under_which_attack(tmp_path):
    points = [{"epsilon": 0.1, "accuracy": 0.7, "attack": "APGD-100, CE"}]
    folder = save(tmp_path / "run", evaluation=EVALUATION | {"epsilon_curve": points})
    assert "Robust accuracy on 1,000 examples under APGD-100, CE alone as" in text_of(write(folder))


def test_the_page_needs_nothing_from_elsewhere(written):
    page = Page(text_of(written))
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")


def test_what_others_wrote_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    attack = {"name": evil, "label": evil, "parameters": {"steps": evil}, "accuracy": 0.5}
    folder = save(
        tmp_path / "run",
        recipe=f"name = '''{evil}'''\ndescription = '''{evil}'''\n",
        environment={evil: evil, "device": evil, "started": evil},
        evaluation=EVALUATION
        | {"attacks": [attack], "warnings": [evil, {"name": evil, "message": evil, "remedy": evil}]},
    )
    save_gallery(folder, names=(evil, "$\\bad{mathematics"))
    page = Page(text_of(write(folder)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 10
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_warnings_are_told_with_what_to_do(run):
    warnings = [{"name": "Masking", "message": "Gradients vanish.", "remedy": "attack more"}, "As text."]
    page = Page(text_of(write(save(run, evaluation=EVALUATION | {"warnings": warnings}))))
    assert page.headings[0] == "2 warnings: read before quoting these numbers"
    assert "Masking Gradients vanish. What to do: attack more" in page.text
    assert "As text." in page.text
    assert "No warnings" not in page.text


def test_without_attacks_robustness_is_not_measured(run):
    page = Page(text_of(write(save(run, evaluation=EVALUATION | {"attacks": [], "robust": 0.9}))))
    assert "Robust accuracy—not measured: no attack was run" in page.text
    assert "Worst case" not in page.text


def test_values_that_are_not_numbers_become_dashes(run):
    attack = {"name": "pgd", "label": "PGD", "parameters": {"epsilon": None}, "accuracy": float("nan")}
    evaluation = {"examples": None, "clean": float("nan"), "robust": None, "attacks": [attack]}
    page = Page(text_of(write(save(run, evaluation=evaluation, history="epoch,loss\n1,nan\n"))))
    assert "Clean accuracy—" in page.text
    assert "Robust accuracy—under one attack" in page.text
    assert "nan" not in page.text.lower()
    assert "Training" not in page.headings


def test_a_run_that_was_only_trained_says_so(tmp_path):
    page = Page(text_of(write(save(tmp_path / "only-trained", history=HISTORY))))
    assert page.headings == ["Training", "Likelihood of the features"]
    assert "only-trained" in page.text
    assert "This run has not been evaluated" in page.text
    assert "No warnings" not in page.text


def test_the_probe_is_drawn_and_explained(run):
    save(run, history="epoch,adversarial_accuracy,probe_accuracy\n1,0.5,0.4\n2,0.9,0.03\n")
    page = Page(text_of(write(run)))
    assert "probe accuracy 3.0 %" in page.attributes("img")[0]["alt"]
    assert "Dash-dotted: validation under the probe" in page.text
    save(run, history="epoch,adversarial_accuracy\n1,0.5\n")
    assert "Dash-dotted" not in Page(text_of(write(run))).text


def test_the_curve_over_iterations_goes_before_the_one_over_epochs(run):
    before = write(run) and (run / "figures" / "likelihood.png").read_bytes()
    save(run, batches="step,clean_lkd,adversarial_lkd,loss\n1,50,60,3\n2,20,33,2\n")
    assert "clean 20, adversarial 33" in Page(text_of(write(run))).attributes("img")[1]["alt"]
    assert (run / "figures" / "likelihood.png").read_bytes() != before


def test_writing_leaves_no_draft_and_no_picture_of_lost_data(run):
    write(run)
    (run / "gallery.npz").unlink()
    write(run)
    assert sorted(path.name for path in run.rglob("*") if path.is_file()) == [
        "environment.json",
        "epsilon.png",
        "evaluation.json",
        "history.csv",
        "likelihood.png",
        "recipe.toml",
        "report.html",
        "training.png",
    ]


def test_a_write_that_fails_keeps_the_former_page(run, monkeypatch):
    former = write(run).read_bytes()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(save(run, evaluation=EVALUATION | {"clean": 0.1}))
    assert (run / "report.html").read_bytes() == former
    assert not [path for path in run.rglob(".*")]


def test_the_same_run_gives_the_same_bytes(run):
    assert write(run).read_bytes() == write(run).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluation.json", "{", "evaluation.json is not valid JSON"),
        ("evaluation.json", "[1]", "must hold a JSON object. Received: list"),
        ("recipe.toml", "name =", "recipe.toml is not valid TOML"),
        ("gallery.npz", "no archive", "gallery.npz cannot be read"),
    ],
)
def test_a_broken_file_is_named(run, name, content, message):
    (run / name).write_text(content)
    with pytest.raises(UserError, match=message):
        write(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="No run folder at"):
        write(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no run: expected one of recipe.toml, .*"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_reading_fills_short_rows_and_drops_empty_columns(run):
    save(run, history="epoch,loss,val_loss\n1,2,\n\n2\n")
    history = read(run).history
    assert set(history) == {"epoch", "loss"}
    np.testing.assert_array_equal(history["loss"], [2, np.nan])


@pytest.mark.parametrize(
    ("method", "epsilon"),
    [
        ("[method.attack]\nepsilon = 0.3", 0.3),
        ('[method.attack]\nepsilon = "8/255"', 8 / 255),
        ('[method.attack]\nepsilon = "wide"', None),
        ("[method.a]\nepsilon = 1\n[method.b]\nepsilon = 2", None),
        ("[evaluation]\nepsilon = 0.3", None),
    ],
)
def test_the_training_radius_comes_from_the_method(tmp_path, method, epsilon):
    assert read(save(tmp_path, recipe=method)).training_epsilon == epsilon


def test_the_room_needs_neither_keras_nor_pyplot():
    code = (
        "import sys, kbl.report as _; "
        "print(sorted({'keras', 'torch', 'jax', 'tensorflow', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    root = Path(html.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def whole(tmp_path, evaluation):
    """Return the page of a run whose evaluation has every section."""
    return write(save(tmp_path / "run", evaluation=evaluation))


def test_the_page_of_the_second_schema_has_its_sections(whole):
    page = Page(text_of(whole))
    assert page.headings == [
        "13 checks, 1 warning: read before quoting these numbers",
        "Accuracy",
        "Black box",
        "Detection by likelihood",
        "Rejection",
        "Accuracy against ε",
        "Environment",
    ]
    assert "worst case of 5 attacks" in page.text  # the minimum-norm attack is none of them
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    told = {name for _, a in page.tags for name in (a.get("aria-labelledby"), a.get("aria-describedby"))}
    assert told - {None} <= set(ids)


def test_its_tables_have_parts_distances_and_passes(whole):
    page = Page(text_of(whole))
    rows = [[cell for cell in row if cell] for row in page.cells]
    part = ["FAB-T-100 ×9", "0.15", "100", "1", "70.6 %", "65.7–75.0 %", "1,810 + 900", "44.1 s"]
    assert part in rows
    assert {"class": "depth-1", "scope": "row"} in page.attributes("th")
    assert ["C&W L2", "1,000", "median ℓ2 0.831", "5,400 + 5,391", "3 min 25 s"] in rows
    assert ["PGD-40 ×5", "0.15", "40", "5", "85.0 %", "80.9–88.3 %", "131 + 128", "4.2 s"] in rows
    assert ["APGD, likely and wrong", "0.541", "93.0 %", "353"] in rows
    accuracy = [width for row, width in zip(page.cells, page.widths, strict=True) if len(row) > 4]
    assert set(accuracy) == {9}


def test_the_histogram_is_a_picture_of_its_own(whole):
    alt = Page(text_of(whole)).attributes("img")[0]["alt"]
    assert alt.startswith("Histograms of the max log-likelihood of clean and attacked images.")
    assert "APGD-CE, all steps 2" in alt
    assert (whole.parent / "figures" / "detection.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "histogram", [None, {"edges": [0, 1], "clean": [1, 2], "series": {}}, {"edges": "x"}, {"edges": [0, 1]}]
)
def test_a_histogram_that_does_not_fit_is_left_out(tmp_path, evaluation, histogram):
    evaluation["detection"]["histogram"] = histogram
    page = Page(text_of(write(save(tmp_path / "run", evaluation=evaluation))))
    assert len(page.attributes("img")) == 1
    assert "Detection by likelihood" in page.headings


def test_the_checks_are_named_and_those_that_fired_marked(whole):
    page = Page(text_of(whole))
    assert "The 13 checks" in page.text
    assert "adaptive stronger (fired)" in page.text
    assert "half precision\n" in page.text


def test_checks_of_which_none_fired_are_told(tmp_path, evaluation):
    page = Page(text_of(write(save(tmp_path / "run", evaluation=evaluation | {"warnings": []}))))
    assert page.headings[0] == "Accuracy"
    assert "13 checks, none fired." in page.text
    assert "(fired)" not in page.text
