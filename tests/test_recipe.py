import pathlib
import subprocess
import sys

import pytest
from pydantic import ValidationError

from kbl import UserError
from kbl.recipe import (
    PGD,
    Recipe,
    RecipeError,
    attack_from_text,
    data_name_from_text,
    difference,
    find,
    is_suite,
    load,
    packaged,
    parse,
    to_toml,
)

pytestmark = pytest.mark.once

VALID = """
[data]
name = "digits"

[network]
name = "digits_convnet"

[method]
name = "atblr"
likelihood_weight = 0.02
attack = { name = "pgd", epsilon = "8/255", step_size = "2/255", steps = 10 }

[training]
epochs = 3

[evaluation]
attacks = [
  { name = "fgsm", epsilon = 0.1, loss = "likelihood" },
  { name = "bim", label = "a \\"b\\" [c] é 😀 \\u007f", epsilon = 0.1, step_size = 0.01, steps = 20 },
]
"""


def faults(text: str, *overrides: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, overrides, origin="x.toml")
    for key, message in caught.value.faults:
        assert key in str(caught.value)
        assert message in str(caught.value)
    return dict(caught.value.faults)


def test_a_valid_recipe_has_its_defaults():
    recipe = parse(VALID, name="mine")
    assert recipe.name == "mine"
    assert recipe.method.attack.epsilon == 8 / 255
    assert recipe.method.attack.restarts == 1
    assert recipe.method.gradient_through == "features and means"
    assert recipe.network.head == "gmm"
    assert recipe.training.batch_size == 128
    assert recipe.evaluation.samples is None


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        parse(VALID).training.epochs = 4


@pytest.mark.parametrize(
    "change", ["", "data.limit=100", "evaluation.epsilons=[0, 0.1, '1/3']", "training.learning_rate=1e-7"]
)
def test_resolved_text_reads_back_as_the_same_recipe(change):
    recipe = parse(VALID, [change] if change else [])
    assert parse(to_toml(recipe), name="other") == recipe


def test_what_a_recipe_differs_in(tmp_path):
    recipe, file = parse(VALID), tmp_path / "recipe.toml"
    assert difference(recipe, file) == ""
    file.write_text(to_toml(recipe), encoding="utf-8")
    assert difference(recipe, file) == ""
    other = parse(VALID, ["backend=jax", "evaluation.epsilons=[0.1]", "evaluation.attacks.1.steps=7"])
    assert difference(other, file) == (
        f'the recipe differs from {file} in backend (nothing there, "jax" here), evaluation.epsilons ([] there, '
        "[0.1] here), evaluation.attacks.1.steps (20 there, 7 here)"
    )
    many = [
        f"training.{key}=0.5" for key in ("learning_rate", "momentum", "weight_decay", "validation_split")
    ]
    many += ["training.seed=1", "training.weight_averaging=0.5"]
    assert difference(parse(VALID, many), file).endswith(" and 1 more")
    file.write_text("x == 1")
    assert difference(recipe, file).startswith(f"the recipe differs from {file}, which is not valid TOML: ")


def test_every_fault_is_listed():
    text = (
        VALID.replace("digits_convnet", "digit_convnet")
        .replace("steps = 10", "steps = 0, stepsize = 1")
        .replace("likelihood_weight", "likelihood_weigth")
        .replace('"fgsm"', '"fsgm"')
        .replace("epochs = 3", 'epochs = "3"\nvalidation_split = 1.0\nseed = true')
    )
    assert faults(text, "network.head=dense", "backend=troch") == {
        "backend": 'expected "torch", "jax" or "tensorflow", received "troch", did you mean "torch"? (from --set)',
        "network.name": 'expected one of "digits_convnet", "mnist_convnet", "mnist_small_convnet", "resnet8", '
        '"resnet20", "resnet32", "resnet18", "preactresnet18", "wide_resnet8", "wide_resnet32", "wide_resnet34_10", '
        'received "digit_convnet", did you mean "digits_convnet"?',
        "method.attack.steps": "expected a number greater than or equal to 1, received 0",
        "method.attack.stepsize": 'unknown key, did you mean "step_size"?',
        "method.likelihood_weight": "expected a number, received nothing",
        "method.likelihood_weigth": 'unknown key, did you mean "likelihood_weight"?',
        "training.epochs": 'expected an integer, received "3"',
        "training.seed": "expected an integer, received true",
        "training.validation_split": "expected a number less than 1, received 1.0",
        "evaluation.attacks.0.name": 'expected one of "fgsm", "bim", "pgd", "cw", "carlini_wagner", "apgd", '
        '"fab", "square", "jsma", "lbfgs", "uniform_noise", "gaussian_noise", "autoattack", "standard", '
        'received "fsgm", did you mean "fgsm"?',
        "method.name": 'needs the Gaussian head; network.head is "dense", set it to "gmm"',
        "evaluation.attacks.0.loss": 'needs the Gaussian head; network.head is "dense", set it to "gmm"',
    }


CERTIFIABLE = (
    'needs convolutions, dense layers and ReLU alone: "digits_convnet" or "mnist_small_convnet" (from --set)'
)


def test_what_cannot_be_certified():
    certified = "method={name = 'certified_training', epsilon = 0.1}"
    assert faults(VALID, certified, "network={name = 'resnet8'}") == {"method.name": CERTIFIABLE}
    assert faults(VALID, "evaluation.certified_epsilon=0.1", "network={name = 'mnist_convnet'}") == {
        "evaluation.certified_epsilon": CERTIFIABLE
    }
    batch = "network={name = 'digits_convnet', batch_normalization = true}"
    [(key, reason)] = faults(VALID, certified, batch).items()
    assert key == "method.name"
    assert reason.startswith("is not defined for the statistics of a batch")
    assert faults(VALID, "evaluation.certified_epsilon=1/10", DIAGONAL, NATURAL) == {
        "evaluation.certified_epsilon": 'needs a head that is affine in the features: "gmm" or "dense" (from --set)'
    }


DIAGONAL = "network={name = 'digits_convnet', head = 'gmm_diagonal'}"
NATURAL = "method={name = 'natural'}"


def test_a_diagonal_covariance_has_no_squared_distances():
    reason = (
        "needs squared distances, -2 times the logits of an identity covariance; with log det Σ they may be "
        'negative; network.head is "gmm_diagonal", set it to "gmm"'
    )
    probed = "training.probe={name = 'pgd', epsilon = 0.1, steps = 3, loss = 'distance_margin'}"
    attacks = "evaluation.attacks=[{name = 'apgd', epsilon = 0.1, loss = 'distance_margin'}]"
    keys = ("method.name", "evaluation.attacks.0.loss", "training.probe.loss")
    found = faults(VALID, DIAGONAL, probed, attacks)
    assert {key: message.removesuffix(" (from --set)") for key, message in found.items()} == dict.fromkeys(
        keys, reason
    )
    # What reads the likelihood itself goes with it.
    assert parse(
        VALID, [DIAGONAL, NATURAL, "evaluation.attacks.1.loss=nearest_mean", "evaluation.detect=true"]
    )


@pytest.mark.parametrize(
    ("changes", "key", "told"),
    [
        (
            ["method={name = 'iaat', gamma = 0.1, attack = {name = 'fgsm', epsilon = '0/255'}}"],
            "method.attack.epsilon",
            "IAAT's radii begin there",
        ),
        (
            ["training.probe={name = 'fgsm', epsilon = 0.1, targeted = true}"],
            "training.probe.targeted",
            "the probe leads images away from their labels; leave it out",
        ),
        (
            ["training.probe={name = 'standard', epsilon = 0.1}"],
            "training.probe.name",
            "is a list of attacks",
        ),
        (
            ["training.probe={name = 'autoattack', epsilon = 0.1}"],
            "training.probe.name",
            "is a list of attacks",
        ),
        (["evaluation={detect = true}"], "evaluation.detect", "is measured at the ε of an attack; give"),
        (
            ["evaluation={reject_below = 0.1, attacks = [{name = 'fab'}, {name = 'fgsm', epsilon = 0}]}"],
            "evaluation.reject_below",
            "is measured at the ε of an attack; give evaluation.attacks one with an ε above 0",
        ),
        (
            ["evaluation.substitute={seed = 0}"],
            "evaluation.substitute.seed",
            "trains the network itself again, and attacks on it are no black box; take another seed",
        ),
        (["evaluation.substitute={seed = 3}", "training.seed=3"], "evaluation.substitute.seed", "trains the"),
    ],
)
def test_what_would_only_fail_later(changes, key, told):
    [(found, message)] = faults(VALID, *changes).items()
    assert found == key
    assert message.startswith(told)


def test_training_crafts_untargeted_images_from_one_start():
    assert faults(VALID, "method.attack.targeted=true", "method.attack.restarts=2") == {
        "method.attack.targeted": "training crafts untargeted images; leave it out (from --set)",
        "method.attack.restarts": "training crafts from one start; set it to 1 (from --set)",
    }


def test_what_does_not_go_with_a_purifier():
    given = (
        "purifier={epsilon = 0.1}",
        "evaluation.substitute={seed = 3}",
        "evaluation.certified_epsilon=0.1",
    )
    found = faults(VALID, *given)
    assert set(found) == {"evaluation.substitute", "evaluation.certified_epsilon"}
    assert "without it; leave it out" in found["evaluation.substitute"]
    assert parse(VALID, given[:1]).purifier.levels == 256


def test_missing_sections_and_wrong_shapes():
    assert faults("evaluation = 3\ntraining = {epochs = 1}\nmethod = {}") == {
        "data": "expected a table, received nothing",
        "network": "expected a table, received nothing",
        "method.name": 'expected one of "natural", "lgm", "center_loss", "defensive_distillation", '
        '"adversarial_training", "atblr", "iaat", "patda", "trades", "mart", "ensemble_adversarial_training", '
        '"certified_training", received nothing',
        "evaluation": "expected a table, received 3",
    }
    wrong = faults(VALID, "evaluation.attacks=pgd", "evaluation.epsilons=0.1", "data.augmentation.mirror=1")
    assert wrong["evaluation.attacks"] == 'expected a list, received "pgd" (from --set)'
    assert wrong["evaluation.epsilons"] == "expected a list, received 0.1 (from --set)"
    assert wrong["data.augmentation.mirror"].startswith("expected a boolean, received 1")


def test_a_key_like_no_other_gets_the_list_of_keys():
    assert "the keys here are name, limit, augmentation" in faults(VALID, "data.zzz=1")["data.zzz"]


@pytest.mark.parametrize("value", ["8/0", "x/2", "1/2/3", "nan", "inf", "true", "-0.1", "-1/255", "''"])
def test_numbers_that_are_none(value):
    assert set(faults(VALID, f"method.attack.epsilon={value}")) == {"method.attack.epsilon"}


def test_values_outside_their_range():
    changes = {
        "method.attack.step_size": "0",
        "method.attack.restarts": "0",
        "method.likelihood_weight": "-1",
        "method.bound": "0",
        "data.limit": "0",
        "data.name": "mnits",
        "training.epsilon_warmup_epochs": "-1",
        "training.learning_rate": "0",
        "name": "a/b",
    }
    found = faults(VALID, *(f"{key}={value}" for key, value in changes.items()))
    assert set(found) == set(changes)
    assert 'did you mean "mnist"?' in found["data.name"]
    assert found["name"].startswith(
        "expected letters, digits and any of . _ - (it names the folder of the run), "
    )


def test_the_gaussian_head_is_demanded_in_python_too():
    tables = parse(VALID).model_dump()
    tables["network"]["head"] = "dense"
    with pytest.raises(ValidationError, match="needs the Gaussian head"):
        Recipe.model_validate(tables)


def test_overrides():
    recipe = parse(
        VALID,
        [
            "training.epochs=5",
            "training.optimizer=sgd",
            "evaluation.attacks.1.steps = 7",
            "method.attack.epsilon=4/255",
            "data.limit=10",
            "data.limit=none",
            "data.augmentation={mirror = true}",
            "description=a = b",
        ],
    )
    assert (recipe.training.epochs, recipe.training.optimizer) == (5, "sgd")
    assert recipe.evaluation.attacks[1].steps == 7
    assert recipe.method.attack.epsilon == 4 / 255
    assert recipe.data.limit is None
    assert recipe.data.augmentation.mirror
    assert recipe.description == "a = b"


@pytest.mark.parametrize(
    "override",
    ["training.epochs", "=3", "training..epochs=3", "evaluation.attacks.9.steps=1", "data.name.x=1"],
)
def test_overrides_that_lead_nowhere(override):
    faults(VALID, override)


def test_bad_toml_tells_file_and_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("name = 'x'\nepochs == 3\n")
    with pytest.raises(
        RecipeError, match=r"bad\.toml:2: not valid TOML: Invalid value \(at line 2, column 9\)"
    ):
        load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(path)


def test_the_name_is_the_file_stem(tmp_path):
    path = tmp_path / "my recipe.toml"
    path.write_text(VALID)
    assert load(path).name == "my-recipe"


def test_attack_from_text():
    assert attack_from_text("pgd:steps=40,epsilon=8/255,restarts=3") == PGD(
        epsilon=8 / 255, steps=40, restarts=3, step_size=2.5 * (8 / 255) / 40
    )
    assert attack_from_text("fgsm:epsilon=0,norm=l2,targeted=true").norm == "l2"
    assert attack_from_text("bim:epsilon=0,steps=2").step_size > 0
    with pytest.raises(RecipeError, match='did you mean "pgd"') as caught:
        attack_from_text("pdg:epsilon=1,steps")
    assert len(caught.value.faults) == 2
    with pytest.raises(RecipeError, match=r"2 faults:\n  epsilon: .*\n  steps: "):
        attack_from_text("pgd")


def test_data_name_from_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert data_name_from_text("mnist") == "mnist"
    assert data_name_from_text("x/../my/own.npz") == str(pathlib.Path.cwd() / "my" / "own.npz")
    assert data_name_from_text("~/own.npz") == "/home/me/own.npz"
    assert data_name_from_text("/own.npz") == "/own.npz"
    with pytest.raises(RecipeError, match=r'--data: expected .* did you mean "digits"\?'):
        data_name_from_text("digit")


def test_packaged_recipes_are_found_and_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("digits").mkdir()  # a folder of that name does not hide the recipe
    assert find("digits") in packaged()
    for path in packaged():
        if is_suite(path):
            continue
        recipe = load(path)
        assert parse(to_toml(recipe)) == recipe
    with pytest.raises(UserError, match=r'comes with kbl \(.*digits.*\), did you mean "digits"\?'):
        find("recipes/digit.toml")


def test_recipes_need_neither_keras_nor_numpy():
    code = "import sys, kbl.recipe; sys.exit(bool({'keras', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
