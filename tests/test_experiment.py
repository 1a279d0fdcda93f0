"""From a recipe to a run folder, and evaluations of what others trained."""

import json
import pathlib
import shutil
import tomllib

import keras
import numpy as np
import pytest
from keras import layers

import kbl
from kbl import (
    DivergenceError,
    UserError,
    backend,
    data,
    experiment,
    from_recipe,
    judging,
    recipe,
    saved_model,
)
from kbl.attacks import BIM, FGSM, PGD
from kbl.layers import GMMHead
from kbl.methods import ATBLR, AdversarialTraining, Natural

FILES = {
    *("recipe.toml", "environment.json", "history.csv", "batches.csv", "model.keras", "best.keras"),
    *("evaluation.json", "gallery.npz", "features.npz", "report.html", "figures"),
}


@pytest.fixture(autouse=True)
def precision():
    """A run sets Keras' policy, and what a GPU may multiply in, for the whole process."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)
    backend.allow_tf32(False)


def tiny(source, *changes: str) -> recipe.Recipe:
    """Cut a recipe down to two steps of 8 images and a look at 6 test images."""
    whole = recipe.load(source)
    few = ["training.epochs=1", "training.batch_size=8", "training.validation_split=0.25", "data.limit=24"]
    few += ["evaluation.samples=6", "evaluation.batch_size=8", "evaluation.epsilons=[]"]
    if hasattr(getattr(whole.method, "attack", None), "steps"):
        few.append("method.attack.steps=2")
    if whole.training.probe is not None:
        few.append("training.probe.steps=2")
    if whole.purifier is not None:
        few += ["purifier.epochs=1", "purifier.filters=2", "purifier.blocks=1"]
        few.append("evaluation.diagnostics=false")  # hundreds of passes, each of 64 of the PixelCNN
    for index, attack in enumerate(whole.evaluation.attacks):
        if hasattr(attack, "steps"):
            few.append(f"evaluation.attacks.{index}.steps=2")
        if hasattr(attack, "restarts"):
            few.append(f"evaluation.attacks.{index}.restarts=1")
    found = recipe.load(source, [*few, *changes])
    if keras.config.backend() == "torch":
        return found
    # The standard list is nine attacks, each compiled for long; the contracts run them on every backend.
    attacks = tuple(attack for attack in found.evaluation.attacks if attack.name != "standard")
    evaluation = found.evaluation.model_copy(update={"attacks": attacks})
    return found.model_copy(update={"evaluation": evaluation})


def packaged() -> list:
    """List the recipes; on backends that compile for long all but one are slow."""
    return [
        pytest.param(
            path, id=path.stem, marks=[] if path.stem == "digits" or is_quick(path) else [pytest.mark.slow]
        )
        for path in recipe.packaged()
        if not recipe.is_suite(path)
    ]


def is_quick(path) -> bool:
    """Whether a whole run takes seconds: always on torch, and of few attacks on TensorFlow."""
    backend = keras.config.backend()
    return backend == "torch" or (backend == "tensorflow" and path.parent.name != "methods")


@pytest.mark.parametrize(
    "path", [path for path in recipe.packaged() if path.parent.name == "methods"], ids=lambda path: path.stem
)
def test_every_method_trains_on_digits(path, tmp_path) -> None:
    """Each recipe of a method, without its evaluation: on every backend."""
    chosen = tiny(path)
    model = experiment.train(chosen, data.load("digits", 24), tmp_path, quiet=True)
    assert int(model.steps_taken) == 2
    assert all(np.isfinite(weight).all() for weight in model.network.get_weights())
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert len(history) == 2
    assert ("probe_accuracy" in history[0]) == (chosen.training.probe is not None)
    assert (tmp_path / "teacher" / "model.keras").exists() == (chosen.method.name == "defensive_distillation")
    sources = len(getattr(chosen.method, "sources", ()))
    assert len(list(tmp_path.glob("source-*/model.keras"))) == sources


@pytest.mark.parametrize("path", packaged())
def test_packaged_recipes_run(path, tmp_path) -> None:
    chosen = tiny(path)
    if data.locate(chosen.data.name) is None:
        pytest.skip(f"{chosen.data.name} is not on this machine (KBL_DATA)")
    result = experiment.run(chosen, tmp_path, quiet=True)
    files = FILES | ({"substitute"} if chosen.evaluation.substitute else set())
    files |= {"iaat": {"radii.npy"}, "defensive_distillation": {"teacher"}}.get(chosen.method.name, set())
    files |= {f"source-{number}" for number in range(len(getattr(chosen.method, "sources", ())))}
    files |= {"pixelcnn.keras", "purified.keras"} if chosen.purifier else set()
    assert {file.name for file in tmp_path.iterdir()} == files
    assert (result["transfer"] is None) == (chosen.evaluation.substitute is None and chosen.purifier is None)
    assert (result["certified"] is None) == (chosen.evaluation.certified_epsilon is None)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(json.dumps(result))
    assert (result["schema"], result["examples"]) == (2, 6)
    assert len(result["attacks"]) >= len(chosen.evaluation.attacks)
    assert 0 <= result["robust"] <= min(attack["accuracy"] for attack in result["attacks"]) <= result["clean"]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 2
    assert [line.split(",")[:2] for line in (tmp_path / "batches.csv").read_text().splitlines()[1:]] == [
        ["1", "1"],
        ["1", "2"],
    ]
    assert recipe.load(tmp_path / "recipe.toml") == chosen
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert (environment["backend"], environment["seed"]) == (keras.config.backend(), chosen.training.seed)
    assert environment["seconds"] > 0
    with np.load(tmp_path / "gallery.npz") as gallery:
        attack = next(a for a in chosen.evaluation.attacks if a.name == "pgd")
        assert np.abs(gallery["x_adv"] - gallery["x"]).max() <= attack.epsilon
        assert (gallery["confidence"] > 0).all()
    assert chosen.name in (tmp_path / "report.html").read_text()


def test_catastrophic_overfitting_is_recorded(tmp_path, monkeypatch) -> None:
    rows = [{"epoch": n, "probe_accuracy": p, "adversarial_accuracy": 0.9} for n, p in ((1, 0.6), (2, 0.1))]
    monkeypatch.setattr(judging, "read_history", lambda folder: rows)
    result = experiment.run(tiny("digits-fgsm"), tmp_path, quiet=True)
    [warning] = [each for each in result["warnings"] if each["name"] == "catastrophic_overfitting"]
    told = "Catastrophic overfitting at epoch 2: 90.0% under the training attack, but 10.0% under PGD-2 "
    assert warning["message"].startswith(told)
    assert "catastrophic_overfitting" in result["checks"]
    assert told in (tmp_path / "report.html").read_text()
    rows[1]["probe_accuracy"] = 0.5
    sound = experiment.run(tiny("digits-fgsm"), tmp_path, quiet=True)
    assert "catastrophic_overfitting" in sound["checks"]
    assert "catastrophic_overfitting" not in {each["name"] for each in sound["warnings"]}


def test_a_purified_network_is_kept_and_evaluated_whole(tmp_path) -> None:
    chosen = tiny("digits-pixeldefend")
    result = experiment.run(chosen, tmp_path, quiet=True)
    assert result["transfer"]["substitute"] == "the network without its purifier"
    made = (tmp_path / "pixelcnn.keras").stat().st_mtime_ns
    again = experiment.evaluate(tmp_path, attacks=["paper"], samples=6, diagnostics=False, quiet=True)
    assert [each["accuracy"] for each in again["attacks"]] == [each["accuracy"] for each in result["attacks"]]
    (tmp_path / "report.html").unlink()
    experiment.run(chosen, tmp_path, resume=True, quiet=True)
    assert (tmp_path / "pixelcnn.keras").stat().st_mtime_ns == made  # not trained again
    network = saved_model.load_network(tmp_path)
    assert [layer.name for layer in network.layers] == ["purify", "digits_convnet"]
    with np.load(tmp_path / "features.npz") as features:
        assert features["clean"].shape[1] == 2


RECIPE = """
[data]
name = "digits"

[network]
name = "digits_convnet"

[method]
name = "natural"

[training]
epochs = 1

[[evaluation.attacks]]
name = "fgsm"
epsilon = 0.1
"""


def test_a_run_ends_with_its_report_whatever_can_be_drawn(tmp_path) -> None:
    """Test images of one class, whose features span no plane, and of two channels, which are no picture."""
    images = np.random.default_rng(0).random((24, 8, 8, 2)).astype("float32")
    labels = np.arange(24) % 3
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images[:6], y_test=0 * labels[:6])
    (tmp_path / "tiny.toml").write_text(RECIPE)
    line = dict.fromkeys(("clean", "adversarial"), np.zeros((6, 1), "float32"))
    line |= {
        "means": np.zeros((1, 1)),
        "y": np.zeros(6),
        "present": np.zeros(1),
        "class_names": np.array(["0"]),
    }
    np.savez(tmp_path / "features.npz", **line)  # what an older run left when it failed in its report
    few = f"data.name={tmp_path / 'two.npz'}"
    experiment.run(tiny(tmp_path / "tiny.toml", few), tmp_path, quiet=True)
    assert "Drawn: channel 1 of 2." in (tmp_path / "report.html").read_text(encoding="utf-8")
    pictures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "gallery" in pictures
    assert "features" not in pictures
    with np.load(tmp_path / "features.npz") as features:
        assert features["clean"].shape == (6, 1)  # nothing was written


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished natural run, and its result."""
    folder = tmp_path_factory.mktemp("run")
    (folder.parent / "tiny.toml").write_text(RECIPE)
    before = keras.config.dtype_policy()
    result = experiment.run(tiny(folder.parent / "tiny.toml"), folder, quiet=True)
    keras.config.set_dtype_policy(before)
    return folder, result


def test_an_earlier_run_stays_until_the_next_can_start(finished, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "substitute").mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    source = folder.parent / "tiny.toml"
    source.write_text(RECIPE)
    with pytest.raises(UserError, match="There is no file"):
        experiment.run(tiny(source, "data.name=nosuch.npz"), folder, force=True, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    experiment.run(tiny(source, "evaluation.attacks=[]"), folder, force=True, quiet=True)
    assert {file.name for file in folder.iterdir()} == FILES - {"gallery.npz", "features.npz"}


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_evaluate_a_run_again(finished) -> None:
    folder, result = finished
    again = experiment.evaluate(folder, quiet=True)
    for key in ("backend", "examples", "clean", "robust", "versions"):
        assert again[key] == result[key]
    assert [a["accuracy"] for a in again["attacks"]] == [a["accuracy"] for a in result["attacks"]]
    attack = recipe.attack_from_text("bim:epsilon=0.2,steps=2")
    other = experiment.evaluate(folder, attacks=[attack], samples=4, quiet=True)
    assert other["examples"] == 4
    assert [(a["label"], a["parameters"]["epsilon"]) for a in other["attacks"]] == [("BIM-2", 0.2)]


def test_a_run_is_evaluated_in_the_arithmetic_of_its_recipe(finished, tmp_path, tf32_is_allowed) -> None:
    """What a GPU may do is never left to the framework, nor to what was run before."""
    folder, options = tmp_path / "run", {"samples": 4, "diagnostics": False, "quiet": True}
    shutil.copytree(finished[0], folder)
    chosen = recipe.load(folder / "recipe.toml", ["training.tf32=true"])
    (folder / "recipe.toml").write_text(recipe.to_toml(chosen))
    attack = recipe.attack_from_text("fgsm:epsilon=0.1")
    for path, allowed in [
        (folder, True),
        (folder / "model.keras", False),
        (folder, True),
        (finished[0], False),
    ]:
        experiment.evaluate(path, data="digits", attacks=[attack], **options)
        assert tf32_is_allowed() == allowed


def test_a_run_on_a_file_is_evaluated_from_anywhere(tmp_path, monkeypatch) -> None:
    digits = data.load("digits", 24)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    arrays = {key: getattr(digits, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez("mine.npz", **arrays)
    pathlib.Path("tiny.toml").write_text(RECIPE)
    chosen = tiny("tiny.toml", "data.name=mine.npz")
    pathlib.Path("run").mkdir()
    result = experiment.run(chosen, pathlib.Path("run"), quiet=True)
    monkeypatch.chdir(tmp_path / "there")
    again = experiment.evaluate(pathlib.Path("../here/run"), quiet=True)
    assert again["robust"] == result["robust"]
    assert recipe.difference(chosen, pathlib.Path("../here/run/recipe.toml")) == ""


def test_evaluate_a_bare_file(finished) -> None:
    folder, _ = finished
    path, attack = folder / "model.keras", recipe.attack_from_text("fgsm:epsilon=0.1")
    found = experiment.evaluate(path, data="digits", attacks=[attack], samples=6, quiet=True)
    again = experiment.evaluate(folder, quiet=True)
    assert (found["clean"], found["robust"]) == (again["clean"], again["robust"])
    with pytest.raises(UserError, match="name its data by --data: digits, mnist, cifar10, cifar100 or"):
        experiment.evaluate(path, attacks=[attack])
    with pytest.raises(UserError, match="give some by --attack"):
        experiment.evaluate(path, data="digits")


def test_a_network_is_no_substitute_for_itself(finished, tmp_path) -> None:
    folder, _ = finished
    copied = tmp_path / "copy.keras"
    copied.write_bytes((folder / "model.keras").read_bytes())
    for substitute in (folder, copied):
        with pytest.raises(
            UserError, match="--substitute: expected a network trained independently"
        ) as error:
            experiment.evaluate(folder, substitute=substitute, quiet=True)
        assert f"Received: {substitute}, whose weights are those of {folder}" in one_line(error)
    network = keras.saving.load_model(copied)
    network.set_weights([0.5 * weight for weight in network.get_weights()])
    network.save(copied)
    result = experiment.evaluate(folder, substitute=copied, samples=6, diagnostics=False, quiet=True)
    assert result["transfer"]["substitute"] == str(copied)


def test_evaluate_a_robust_model_file(finished, tmp_path) -> None:
    """A checkpoint of the training model holds its network."""
    folder, _ = finished
    network = keras.saving.load_model(folder / "model.keras")
    model = kbl.RobustModel(network)
    model.compile(method=Natural())
    model.save(tmp_path / "whole.keras")
    found = saved_model.load_network(tmp_path / "whole.keras")
    for a, b in zip(found.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


FGSM_TEXT = "fgsm:epsilon=0.1"


def test_a_corrupt_file_is_told_in_a_line(tmp_path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(UserError) as error:
        experiment.evaluate(path, data="digits", attacks=[recipe.attack_from_text(FGSM_TEXT)])
    assert str(path) in one_line(error)


def test_code_in_a_file_is_refused(tmp_path) -> None:
    path = tmp_path / "lambda.keras"
    keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Lambda(lambda x: x[:, :10])]).save(
        path
    )
    with pytest.raises(UserError) as error:
        experiment.evaluate(path, data="digits", attacks=[recipe.attack_from_text(FGSM_TEXT)])
    text = one_line(error)
    assert "loaded safely" in text
    assert "Lambda" in text or "lambda" in text


@pytest.mark.parametrize(("shape", "classes"), [((28, 28, 1), 10), ((8, 8, 1), 4)])
def test_a_network_of_other_images_or_classes_is_refused(tmp_path, shape, classes) -> None:
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes)]).save(path)
    with pytest.raises(UserError, match="cannot be evaluated on digits: "):
        experiment.evaluate(
            path, data="digits", attacks=[recipe.attack_from_text(FGSM_TEXT)], samples=8, quiet=True
        )


DIVERGING = """
[data]
name = "digits"

[network]
name = "digits_convnet"

[method]
name = "atblr"
likelihood_weight = 100.0

[method.attack]
name = "fgsm"
epsilon = 0.3

[training]
epochs = 30
optimizer = "sgd"
learning_rate = 0.02
"""


def test_divergence_tells_what_is_kept(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "diverging.toml").write_text(DIVERGING)
    chosen = recipe.load(tmp_path / "diverging.toml", ["training.batch_size=8", "data.limit=17"])
    with pytest.raises(DivergenceError) as error:
        experiment.run(chosen, folder, quiet=True)
    text = one_line(error)
    assert text.startswith("Training ran away at epoch 2: val_clean_lkd, the mean of ‖h - μ_y‖², is ")
    assert "likelihood term of Eq. 8" in text
    assert text.endswith(f"The last good epoch is kept in {folder / 'model.keras'}.")
    assert not (folder / "evaluation.json").exists()
    assert len((folder / "history.csv").read_text().splitlines()) == 2
    network = keras.saving.load_model(folder / "model.keras")
    images = data.load("digits").x_train
    assert np.abs(network.predict(images[:17], verbose=0)).max() < 1e6


def test_divergence_before_there_is_anything_to_keep(tmp_path) -> None:
    (tmp_path / "diverging.toml").write_text(DIVERGING)
    chosen = recipe.load(
        tmp_path / "diverging.toml", ["training.batch_size=8", "data.limit=17", "training.learning_rate=1e9"]
    )
    with pytest.raises(DivergenceError, match=r"epoch 1: .* No epoch was finished\.$"):
        experiment.run(chosen, tmp_path, quiet=True)
    assert not (tmp_path / "model.keras").exists()


# From what a recipe says to objects.


def test_attacks_of_a_recipe() -> None:
    texts = {
        "fgsm:epsilon=0.1,loss=margin": FGSM(0.1, loss="margin"),
        "bim:epsilon=8/255,steps=4,norm=l2": BIM(8 / 255, 2.5 * (8 / 255) / 4, 4, norm="l2"),
        "pgd:epsilon=0.1,steps=2,step_size=0.05,restarts=3,random_start=false,early_stop=false": PGD(
            0.1, 0.05, 2, restarts=3, random_start=False, early_stop=False
        ),
    }
    for text, expected in texts.items():
        assert from_recipe.to_attack(recipe.attack_from_text(text)) == expected


def test_methods_of_a_recipe() -> None:
    attack = recipe.PGD(epsilon=0.1, steps=5)
    pgd = PGD(0.1, 0.05, 5)
    assert from_recipe.to_method(recipe.Natural(), steps_an_epoch=4, images=9) == Natural()
    described = recipe.AdversarialTraining(
        attack=attack, examples="clean and adversarial", batch_norm="separate"
    )
    assert from_recipe.to_method(
        described, steps_an_epoch=4, images=9, epsilon_warmup_epochs=1.75
    ) == AdversarialTraining(
        attack=pgd, examples="clean and adversarial", batch_norm="separate", warmup_steps=7
    )
    described = recipe.ATBLR(attack=attack, likelihood_weight=0.1, bound=9.0, crafting_mode="training")
    assert from_recipe.to_method(described, steps_an_epoch=4, images=9) == ATBLR(
        attack=pgd, likelihood_weight=0.1, bound=9.0, crafting_mode="training"
    )


def test_the_recipe_as_run_holds_every_default(finished) -> None:
    folder, _ = finished
    written = tomllib.loads((folder / "recipe.toml").read_text())
    assert written["training"]["optimizer"] == "adam"
    network = keras.saving.load_model(folder / "model.keras")
    assert isinstance(network.layers[-1], GMMHead)
