import json
from pathlib import Path

import pytest
from html_page import Page
from rich.console import Console

from kbl.errors import UserError
from kbl.report import compare

pytestmark = pytest.mark.once

FIRST = {
    "schema": 1,
    "backend": "jax",
    "examples": 100,
    "clean": 0.9,
    "robust": 0.5,
    "attacks": [{"name": "fgsm", "label": "FGSM", "parameters": {"epsilon": 0.15}, "accuracy": 0.5}],
}
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def runs(tmp_path, evaluation):
    """Return a run folder of the second schema, and a file of the first."""
    folder = tmp_path / "digits-torch"
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "recipe.toml").write_text('[data]\nname = "digits"\n[method]\nname = "atblr"\n')
    (tmp_path / "old.json").write_text(json.dumps(FIRST))
    return [folder, tmp_path / "old.json"]


def table_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|") and not line.startswith("|:")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_a_line_a_run_and_a_column_an_attack(runs):
    assert table_of(compare(runs).to_markdown()) == [
        [
            *("Run", "Data", "Method", "Backend", "N", "ε", "Clean", "Worst case"),
            *("FGSM", "PGD-40 ×5", "AutoAttack standard", "APGD-100, likelihood", "Square-5000", "C&W L2"),
            *("Black box", "Warnings"),
        ],
        [
            *("digits-torch", "digits", "atblr", "torch", "360", "0.15"),
            *("98.1 % (96.0–99.1 %)", "69.2 % (64.2–73.7 %)"),
            *("83.6 %", "72.8 %", "70.0 %", "71.7 %", "75.0 %", "ℓ2 0.831", "75.0 %", "1"),
        ],
        [
            *("old", "—", "—", "jax", "100", "0.15", "90.0 % (82.6–94.5 %)", "50.0 % (40.4–59.6 %)"),
            *("50.0 %", "—", "—", "—", "—", "—", "—", "0"),
        ],
    ]


def test_markdown_tells_the_warnings(runs):
    text = compare(runs).to_markdown()
    assert "**Warning** (digits-torch): adaptive stronger: The attack" in text
    assert "different ε" not in text


def test_different_radii_are_told(runs, tmp_path):
    strong = FIRST["attacks"][0] | {"parameters": {"epsilon": 0.3}}
    (tmp_path / "old.json").write_text(json.dumps(FIRST | {"attacks": [strong]}))
    (tmp_path / "both.json").write_text(json.dumps(FIRST | {"attacks": [strong, *FIRST["attacks"]]}))
    comparison = compare([*runs, tmp_path / "both.json"])
    assert "only those with the same can be compared" in comparison.to_markdown()
    *_, old, both = comparison.runs
    assert (old.epsilon, old.attacks) == ("0.3", {"FGSM": "50.0 %"})
    assert both.epsilon == ""
    assert both.attacks == {"FGSM": "50.0 % (ε 0.3)", "FGSM (2)": "50.0 % (ε 0.15)"}


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "evaluation.json").write_text(json.dumps(FIRST))
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run" / "evaluation.json"]
    assert [run.name for run in compare(paths).runs] == [str(path) for path in paths]
    assert [run.name for run in compare(paths[1:]).runs] == ["run"]


def shown(table, width):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_terminal_shows_what_there_is_room_for_and_names_the_rest(runs):
    wide = shown(compare(runs).table(), 160)
    for word in ("digits · atblr · torch", "N = 360, ε = 0.15", "98.1 %", "64.2–73.7 %", "ℓ2 0.831"):
        assert word in wide
    assert "No room" not in wide
    for width in (80, 100):
        narrow = shown(compare(runs).table(), width)
        assert max(map(len, narrow.splitlines())) <= width
        assert "C&W L2." in narrow.split("No room for:")[1].replace("\n", " ")
        assert "Warnings" in narrow
        assert "…" not in narrow


def test_the_page_stands_alone_and_holds_the_table(runs):
    page = Page(compare(runs).to_html())
    assert page.headings == ["Accuracy", "Diagnostics"]
    rows = [[cell for cell in row if cell] for row in page.cells]
    assert rows[1][0] == "digits-torchdigits · atblr · torch"
    assert rows[2] == [
        *("oldjax", "100", "0.15", "90.0 %82.6–94.5 %", "50.0 %40.4–59.6 %", "50.0 %"),
        *("—", "—", "—", "—", "—", "—", "0"),
    ]
    assert set(page.widths) == {14}
    assert "digits-torch: 13 checks, 1 warning" in page.text
    assert "old: no warnings" in page.text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [attributes for _, attributes in page.tags if "src" in attributes or "href" in attributes]
    assert "default-src 'none'" in page.source


def test_what_others_wrote_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    attack = FIRST["attacks"][0] | {"label": evil}
    evaluation = FIRST | {"backend": evil, "attacks": [attack], "warnings": [evil], "checks": [evil]}
    (tmp_path / "evil.json").write_text(json.dumps(evaluation))
    page = Page(compare([tmp_path / "evil.json"]).to_html())
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) == 4


def test_without_an_attack_there_is_no_worst_case(tmp_path):
    (tmp_path / "clean.json").write_text(json.dumps(FIRST | {"attacks": []}))
    comparison = compare([tmp_path / "clean.json"])
    assert table_of(comparison.to_markdown())[1][5:] == ["—", "90.0 % (82.6–94.5 %)", "—", "—", "0"]
    assert "No room" not in shown(comparison.table(), 80)
    assert Page(comparison.to_html()).widths == [8, 8]


def test_the_results_of_the_first_schema_can_be_compared():
    paths = sorted(RESULTS.glob("digits-*.json"))
    assert len(paths) >= 5
    assert [run.name for run in compare(paths).runs] == [path.stem for path in paths]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "nowhere",
            None,
            "nowhere: expected a run folder or an evaluation.json, received what does not exist",
        ),
        (".", None, "received a folder without evaluation.json"),
        ("other.json", '{"runs": []}', "other.json: .* received JSON without `clean` and `examples`"),
        ("list.json", "[1]", "list.json must hold a JSON object"),
        ("broken.json", "{", "broken.json is not valid JSON"),
        ("odd.json", '{"clean": 98.1, "examples": 10}', "odd.json: `fraction` must lie in"),
    ],
)
def test_a_path_that_is_neither_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        compare([tmp_path / name])


def test_nothing_is_refused():
    with pytest.raises(UserError, match="expected one run folder"):
        compare([])
