import json

import pytest

from kbl.report import accuracy_markdown

pytestmark = pytest.mark.once

EVALUATION = {
    "examples": 1000,
    "clean": 0.9,
    "robust": 0.4,
    "attacks": [
        {"name": "fgsm", "label": "FGSM", "parameters": {"epsilon": 8 / 255}, "accuracy": 0.6},
        {
            "name": "pgd",
            "label": "PGD [targeted]",
            "parameters": {"epsilon": 8 / 255, "steps": 1000, "restarts": 2},
            "accuracy": 0.45,
            "seconds": 65.0,
        },
    ],
}


def table_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("|:")
    ]


def test_markdown_puts_runs_side_by_side():
    pgd = EVALUATION["attacks"][1]
    other = {"examples": 100, "clean": 0.5, "robust": 0.25, "attacks": [pgd | {"accuracy": 0.25}]}
    assert table_of(accuracy_markdown({"ATBLR": EVALUATION, "AT": other})) == [
        ["Attack", "ε", "Steps", "Restarts", "ATBLR (N = 1,000)", "AT (N = 100)"],
        ["Clean", "", "", "", "90.0 % (88.0–91.7 %)", "50.0 % (40.4–59.6 %)"],
        ["FGSM", "8/255", "", "", "60.0 % (56.9–63.0 %)", "—"],
        ["PGD [targeted]", "8/255", "1,000", "2", "45.0 % (41.9–48.1 %)", "25.0 % (17.5–34.3 %)"],
        ["Worst case per example", "8/255", "", "", "40.0 % (37.0–43.1 %)", "25.0 % (17.5–34.3 %)"],
    ]


def test_markdown_keeps_attacks_that_look_alike_and_those_of_later_runs_above_the_worst_case():
    twice = EVALUATION | {"attacks": [EVALUATION["attacks"][0]] * 2}
    other = EVALUATION | {"attacks": [{"label": "new", "accuracy": 0.4}]}
    labels = [row[0] for row in table_of(accuracy_markdown({"a": twice, "b": other}))[1:]]
    assert labels[:4] == ["Clean", "FGSM", "FGSM", "new"]


def test_markdown_worst_cases_at_different_radii_do_not_share_a_row():
    far = EVALUATION | {"attacks": [{"label": "FGSM", "parameters": {"epsilon": 0.3}, "accuracy": 0.4}]}
    rows = table_of(accuracy_markdown({"a": EVALUATION, "b": far}))
    assert [row[1] for row in rows if row[0].startswith("Worst")] == ["8/255", "0.3"]


def test_markdown_escapes_pipes_and_tells_the_warnings():
    evaluation = EVALUATION | {
        "warnings": [{"name": "Masking", "message": "gradients vanish.", "remedy": "attack more"}, "plain"]
    }
    text = accuracy_markdown({"a|b": evaluation})
    assert "| a\\|b (N = 1,000) |" in text
    assert "**Warning** (a|b): Masking: gradients vanish. What to do: attack more" in text
    assert "**Warning** (a|b): plain" in text


def test_a_norm_other_than_linf_is_named():
    attack = {"label": "PGD", "parameters": {"epsilon": 0.5, "norm": "l2"}, "accuracy": 0.4}
    rows = table_of(accuracy_markdown({"a": EVALUATION | {"attacks": [attack]}}))
    assert rows[2][:2] == ["PGD", "0.5 (ℓ2)"]


def test_markdown_puts_parts_beneath_their_attack_whichever_run_has_them(evaluation):
    other = EVALUATION | {"attacks": [{"label": "new", "accuracy": 0.4}]}
    labels = [row[0] for row in table_of(accuracy_markdown({"a": other, "b": evaluation}))]
    place = labels.index("AutoAttack standard")
    assert labels[place + 1 : place + 5] == [
        "↳ APGD-100, CE",
        "↳ APGD-100, DLR, 9 targets",
        "↳ FAB-T-100 ×9",
        "↳ Square-5000",
    ]
    assert labels.index("new") < place < labels.index("Worst case per example")


def test_markdown_of_two_runs_joins_parts_of_the_same_attack(evaluation):
    rows = table_of(accuracy_markdown({"a": evaluation, "b": evaluation}))
    parts = [row for row in rows if row[0] == "↳ Square-5000"]
    assert len(parts) == 1
    assert parts[0][-2:] == ["70.0 % (65.1–74.5 %)"] * 2


def test_markdown_puts_a_part_that_only_the_second_run_has_beneath_the_attack_of_the_first(evaluation):
    longer = json.loads(json.dumps(evaluation))
    evaluation["attacks"][2]["parts"] = evaluation["attacks"][2]["parts"][:1]
    labels = [row[0] for row in table_of(accuracy_markdown({"a": evaluation, "b": longer}))]
    assert labels[3:9] == [
        *("PGD-40 ×5", "AutoAttack standard", "↳ APGD-100, CE"),
        *("↳ APGD-100, DLR, 9 targets", "↳ FAB-T-100 ×9", "↳ Square-5000"),
    ]


def test_markdown_of_one_run_has_passes_and_time(evaluation):
    rows = table_of(accuracy_markdown({"a": evaluation}))
    assert rows[0] == ["Attack", "ε", "Steps", "Restarts", "a (N = 360)", "Passes", "Time"]
    nearest = next(row for row in rows if row[0] == "C&W L2")
    assert nearest == ["C&W L2", "", "1,000", "", "median ℓ2 0.831", "5,400 + 5,391", "3 min 25 s"]


def test_markdown_has_a_table_of_the_black_box(evaluation):
    text = accuracy_markdown({"a": evaluation, "b": EVALUATION})
    rows = table_of(text.split("**Black box**")[1])
    assert [row[0] for row in rows[1:4]] == [
        "Square-5000",
        "Square-5000, within AutoAttack standard",
        "PGD-40 ×5",
    ]
    assert all(row[-1] == "—" for row in rows[1:])
    assert "Black box" not in accuracy_markdown({"b": EVALUATION})
