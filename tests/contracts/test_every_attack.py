"""What every attack promises, from noise to AutoAttack: the same checks over all of them."""

import functools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.attacks import (
    APGD,
    BIM,
    FAB,
    FGSM,
    JSMA,
    LBFGS,
    PGD,
    AutoAttack,
    CarliniWagner,
    CarliniWagnerLinf,
    GaussianNoise,
    Square,
    UniformNoise,
    adaptive,
    predict,
    standard,
)
from kbl.layers import GMMHead

BACKEND = keras.backend.backend()
CLASSES, SIDE, COUNT = 4, 6, 12

ATTACKS = {
    "fgsm": FGSM(0.1),
    "bim": BIM(0.1, 0.03, 5),
    "pgd": PGD(0.1, 0.03, 5, restarts=2),
    "cw linf": CarliniWagnerLinf(0.1, 0.03, 5, kappa=1.0),
    "cw": CarliniWagner(steps=20, binary_search_steps=3, initial_c=1.0, learning_rate=0.1),
    "apgd": APGD(0.1, 8),
    "apgd l2": APGD(0.5, 8, norm="l2", loss="margin"),
    "apgd-t": APGD(0.1, 8, targets=9, loss="dlr"),
    "fab": FAB(0.1, 8),
    "fab-t": FAB(None, 8, targets=9, norm="l2"),
    "square": Square(0.1, 30),
    "square l2": Square(0.6, 30, norm="l2"),
    "jsma": JSMA(gamma=0.3),
    "lbfgs": LBFGS(steps=20, binary_search_steps=5),
    "uniform noise": UniformNoise(0.3, 10),
    "gaussian noise": GaussianNoise(0.3, 10),
    "autoattack": AutoAttack(0.1, version="custom", attacks=(APGD(0.1, 5), Square(0.1, 10))),
    **{f"adaptive {attack.loss}": replace(attack, steps=8) for attack in adaptive(0.1)},
}
GAUSSIAN = tuple(name for name in ATTACKS if name.startswith("adaptive"))


def filled(network: keras.Model, seed: int = 3) -> keras.Model:
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(rng.normal(size=weight.shape) * (0.4 if len(weight.shape) > 1 else 0.1))
    return network


@functools.cache
def network(kind: str = "dense") -> keras.Model:
    """A tiny convnet; "gmm" with a Gaussian head, "far" the same logits as "dense" less 1,000."""
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Dense(8, activation="tanh")(layers.Flatten()(x))
    head = GMMHead(CLASSES) if kind == "gmm" else layers.Dense(CLASSES)
    found = filled(keras.Model(inputs, head(x)))
    if kind == "far":
        weights, bias = found.layers[-1].get_weights()
        found.layers[-1].set_weights([weights, bias - 1000.0])
    return found


X = np.random.default_rng(1).random((COUNT, SIDE, SIDE, 1)).astype("float32")
X[0], X[1] = np.round(X[0]), 0.0  # pixels of exactly 0 and 1


@functools.cache
def labels(kind: str) -> np.ndarray:
    """The network's own answers, but for every fifth image: a clean mistake."""
    y = predict(network(kind), X).argmax(axis=1)
    y[::5] = (y[::5] + 1) % CLASSES
    return y


def kind_of(name: str) -> str:
    return "gmm" if name in GAUSSIAN else "dense"


@functools.cache
def found(name: str, kind: str | None = None, batch_size: int = 8):
    kind = kind or kind_of(name)
    return ATTACKS[name].search(network(kind), X, labels(kind), batch_size=batch_size, seed=5)


def distance(attack, x_adv: np.ndarray) -> np.ndarray:
    offset = (x_adv.astype("float64") - X).reshape(COUNT, -1)
    norm = getattr(attack, "norm", "linf")
    return np.abs(offset).max(axis=1) if norm == "linf" else np.sqrt((offset**2).sum(axis=1))


@pytest.mark.parametrize("name", ATTACKS)
def test_images_are_valid_and_inside_the_ball(name: str) -> None:
    attack, x_adv = ATTACKS[name], found(name).x_adv
    assert (x_adv.shape, x_adv.dtype) == (X.shape, np.float32)
    assert np.isfinite(x_adv).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    epsilon = getattr(attack, "epsilon", None)
    if epsilon is not None:
        assert (distance(attack, x_adv) <= epsilon).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_what_it_says_is_what_a_new_prediction_says(name: str) -> None:
    """Mistakes stay mistakes, and something falls: else the other checks would be of no attack."""
    kind, outcome = kind_of(name), found(name)
    right = predict(network(kind), outcome.x_adv).argmax(axis=1) == labels(kind)
    np.testing.assert_array_equal(outcome.fooled, ~right)
    assert outcome.fooled[::5].all()
    assert outcome.fooled.sum() > len(outcome.fooled[::5])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_fares_the_same_in_any_batch(name: str) -> None:
    """Alone in the order reversed, with its own index."""
    kind, whole = kind_of(name), found(name)
    order = np.arange(COUNT)[::-1]
    turned = ATTACKS[name].search(
        network(kind), X[order], labels(kind)[order], index=order, batch_size=4, seed=5
    )
    np.testing.assert_array_equal(turned.fooled[order], whole.fooled)
    agree = np.abs(turned.x_adv[order] - whole.x_adv).reshape(COUNT, -1).max(axis=1) < 1e-3
    assert agree.mean() > 0.8  # rounding may turn a sign


# Which images fall, and the scores of those that do not, summed; made on torch.
GOLDEN = {
    "fgsm": ("xx.x.xxxxxxx", 2.0437),
    "bim": ("xx.x.xxxxxxx", 2.0651),
    "pgd": ("xx.x.xxxxxxx", 2.0141),
    "cw linf": ("xx.x.xxxxxxx", -0.6603),
    "cw": ("x.xxxxxxxxxx", 0.0),
    "apgd": ("xx.x.xxxxxxx", 2.085),
    "apgd l2": ("xxxxxxxxxxxx", 0.0),
    "apgd-t": ("xx.x.xxxxxxx", -0.4874),
    "fab": ("xx.x.xxxxxxx", 0.0),
    "fab-t": ("xxxxxxxxxxxx", 0.0),
    "square": ("xx.x.xxx.xx.", -2.3755),
    "square l2": ("xx.x.xxxxxxx", -0.5544),
    "jsma": ("xx.x.xx.x.x.", 4.6513),
    "lbfgs": ("xxxxxxxxxxxx", 0.0),
    "uniform noise": ("xx...xxxxxx.", 3.6625),
    "gaussian noise": ("xx.xxxxxxxxx", 1.1073),
    "autoattack": ("xx.x.xxxxxxx", -2.6082),
    "adaptive likelihood": ("xx..xx.x.xx.", 27.2218),
    "adaptive nearest_mean": ("xxx.xxxxxxxx", -1.5125),
    "adaptive distance_margin": ("xxxxxxxxxxxx", 0.0),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_backend_finds_the_same(name: str) -> None:
    outcome = found(name)
    assert "".join("x" if fell else "." for fell in outcome.fooled) == GOLDEN[name][0]
    scores = outcome.score[~outcome.fooled]
    assert scores[np.isfinite(scores)].sum() == pytest.approx(GOLDEN[name][1], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_network_is_left_as_it_was(name: str) -> None:
    kind = kind_of(name)
    before = [np.array(ops.convert_to_numpy(variable)) for variable in network(kind).variables]
    ATTACKS[name](network(kind), X[:8], labels(kind)[:8], batch_size=8)
    for old, variable in zip(before, network(kind).variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


def on_other_networks(names) -> list:
    """On JAX, which compiles each attack anew for each network and for long, all but four are slow."""
    core = ("apgd-t", "cw", "fab", "square")
    slow = [pytest.mark.slow] if BACKEND == "jax" else []
    return [pytest.param(name, marks=[] if name in core else slow) for name in names]


@pytest.mark.parametrize("name", on_other_networks(name for name in ATTACKS if name not in GAUSSIAN))
def test_logits_that_are_all_negative(name: str) -> None:
    """A constant less in every logit changes nothing: no product may stand for a mask."""
    assert (predict(network("far"), X) < -900).all()
    near, far = found(name), found(name, "far")
    # At 1,000 the logits keep four decimals: an image at the border may turn over.
    assert (near.fooled != far.fooled).sum() <= 1


@pytest.mark.parametrize("name", on_other_networks(ATTACKS))
def test_a_gaussian_head(name: str) -> None:
    assert found(name, "gmm").fooled.sum() > len(X[::5])


@pytest.mark.parametrize("name", on_other_networks(ATTACKS))
def test_a_planted_adversarial_image_is_found(name: str) -> None:
    """A network that names class 1 as soon as the mean pixel has risen by 0.02, and images far from it otherwise."""
    planted = keras.Sequential(
        [keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(8), GMMHead(CLASSES)]
    )
    mean = np.zeros((SIDE * SIDE, 8), "float32")
    mean[:, 0] = 1.0 / SIDE**2
    means = np.zeros((CLASSES, 8), "float32")
    means[:, 0] = [0.4, 0.6, 9.0, -9.0]
    planted.set_weights([10 * mean, np.zeros(8), 10 * means])
    x = np.full((4, SIDE, SIDE, 1), 0.48, "float32") + np.linspace(0, 0.015, 4).reshape(4, 1, 1, 1).astype(
        "float32"
    )
    attack = ATTACKS[name]
    if name.endswith("noise"):
        x += 0.019 - np.linspace(0, 0.015, 4).reshape(4, 1, 1, 1).astype("float32")  # chance goes no further
        attack = replace(attack, draws=200)
    outcome = attack.search(planted, x, np.zeros(4, "int32"))
    assert outcome.fooled.all()
    assert (predict(planted, outcome.x_adv).argmax(axis=1) != 0).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_saved_and_loaded(name: str) -> None:
    attack = ATTACKS[name]
    described = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(described) == attack


@pytest.mark.parametrize("name", ATTACKS)
def test_no_images_and_one(name: str) -> None:
    kind = kind_of(name)
    assert len(ATTACKS[name](network(kind), X[:0], labels(kind)[:0])) == 0
    assert ATTACKS[name](network(kind), X[:1], labels(kind)[:1], batch_size=8).shape == (1, SIDE, SIDE, 1)


@pytest.mark.skipif(
    BACKEND != "torch" or kbl.backend.COMPILES_SHAPES,
    reason="passes are counted where Python makes them and batches are not filled up",
)
@pytest.mark.parametrize("name", ATTACKS)
def test_passes_are_counted_truly(name: str, monkeypatch) -> None:
    kind = kind_of(name)
    inner = network(kind)
    seen = {"forward": 0, "backward": 0}

    class Counting(keras.Model):
        def call(self, x):
            seen["forward"] += int(x.shape[0])
            return inner(x)

    from kbl import backend

    original = backend.value_and_grad

    def value_and_grad(fn, x):
        seen["backward"] += int(x.shape[0])
        return original(fn, x)

    monkeypatch.setattr(backend, "value_and_grad", value_and_grad)
    counting = Counting()
    counting(X[:1])  # builds it
    seen["forward"] = 0
    outcome = ATTACKS[name].search(counting, X, labels(kind), batch_size=COUNT)
    # Images looked at to learn the number of classes, where the clean ones are not predicted anyway.
    sampled = 8 * (1 + (2 if name == "autoattack" else 0))
    looked = seen["forward"] - outcome.forward
    assert 0 <= looked <= sampled
    assert seen["backward"] == outcome.backward


@pytest.mark.skipif(BACKEND == "torch", reason="torch runs eagerly")
@pytest.mark.parametrize("name", ["apgd", "square", "cw", "fab"])
def test_numbers_do_not_compile_anew(name: str) -> None:
    count = []

    @keras.saving.register_keras_serializable(package="tests")
    class Traced(layers.Layer):
        def call(self, x):
            count.append(1)
            return x

    traced = keras.Sequential([keras.Input((SIDE, SIDE, 1)), Traced(), network()])
    attack = ATTACKS[name]
    changes = {"cw": {"kappa": 2.0, "initial_c": 2.0}, "square": {"queries": 40, "epsilon": 0.05}}
    attack(traced, X[:8], labels("dense")[:8], batch_size=8)
    before = len(count)
    replace(attack, **changes.get(name, {"steps": 12, "epsilon": 0.05}))(
        traced, X[:8], labels("dense")[:8], batch_size=8, seed=9
    )
    assert len(count) == before


@pytest.mark.parametrize(
    "attack",
    [
        replace(ATTACKS["cw"], targeted=True),
        APGD(0.5, 20, targeted=True),
        replace(ATTACKS["lbfgs"], targeted=True),
        Square(0.6, 200, targeted=True),
        JSMA(gamma=1.0, targeted=True),
        CarliniWagnerLinf(0.5, 0.1, 20, targeted=True),
    ],
    ids=lambda attack: attack.name,
)
def test_targets_are_reached(attack) -> None:
    y = predict(network(), X).argmax(axis=1)
    targets = (y + 1) % CLASSES
    outcome = attack.search(network(), X, targets, batch_size=16)
    named = predict(network(), outcome.x_adv).argmax(axis=1)
    np.testing.assert_array_equal(outcome.fooled, named == targets)
    assert outcome.fooled.mean() >= 0.4


def test_the_standard_list() -> None:
    """Croce & Hein's four parts with their budgets; for a Gaussian head three more."""
    (whole,) = standard(8 / 255)
    parts = whole.parts(10)
    assert [part.name for part in parts] == ["apgd", "apgd", "fab", "square"]
    assert [getattr(part, "targets", 0) for part in parts] == [0, 9, 9, 0]
    assert [part.starts(10) for part in parts] == [1, 9, 9, 1]
    assert [part.starts(4) for part in parts] == [1, 3, 3, 1]
    assert [part.length for part in parts] == [100, 100, 100, 4999]
    assert {part.epsilon for part in parts} == {8 / 255}
    assert [part.loss for part in parts[:2]] == ["cross_entropy", "dlr"]
    assert [part.loss for part in whole.parts(3)[:2]] == ["cross_entropy", "margin"]
    assert [a.loss for a in standard(0.1, gaussian_head=True)[1:]] == [
        "likelihood",
        "nearest_mean",
        "distance_margin",
    ]
    plus = AutoAttack(0.1, version="plus").parts(10)
    assert [(p.name, p.starts(10)) for p in plus] == [
        ("apgd", 5), ("apgd", 5), ("fab", 5), ("square", 1), ("apgd", 9), ("fab", 9),
    ]  # fmt: skip
    assert [part.eot for part in AutoAttack(0.1, version="rand").parts(10)] == [20, 20]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoAttack(0.1, version="best"), "version must be one of"),
        (lambda: AutoAttack(0.1, version="custom"), "attacks belong to"),
        (lambda: AutoAttack(-0.1), "epsilon must be at least 0"),
        (lambda: APGD(0.1, loss="hinge"), "loss must be one of"),
        (lambda: APGD(0.1, targets=3, loss="likelihood"), "loss must be one of"),
        (lambda: APGD(0.1, targets=3, targeted=True), "does not go with targeted"),
        (lambda: CarliniWagner(initial_c=0), "initial_c must be positive"),
        (lambda: CarliniWagner(kappa=-1), "kappa must be at least 0"),
        (lambda: PGD(0.1, 0.1, 1.5), r"steps must be a whole number\. Received: steps=1\.5"),
        (lambda: PGD("8/255", 0.1, 1), "epsilon must be a number"),
        (lambda: AutoAttack(None), "epsilon must be a number"),
        (lambda: Square(0.1, queries=True), "queries must be a whole number"),
        (lambda: custom(PGD(0.2, 0.1, 3)), r"must stay in the ball .* Received: PGD-3 .* epsilon=0.2"),
        (lambda: custom(PGD(0.1, 0.1, 3, norm="l2")), "must stay in the ball"),
        (lambda: custom(CarliniWagner()), "must stay in the ball"),
        (lambda: custom(FAB(None)), "must stay in the ball"),
        (lambda: custom(FGSM(0.1, targeted=True)), "must not be targeted"),
    ],
)
def test_bad_fields(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def custom(*parts) -> AutoAttack:
    return AutoAttack(0.1, version="custom", attacks=parts)


def test_numbers_may_be_of_numpy() -> None:
    for made, same in ((PGD(np.float32(0.25), 0.125, np.int64(5)), PGD(0.25, 0.125, 5)),
                       (AutoAttack(np.float32(0.25)), AutoAttack(0.25))):  # fmt: skip
        assert (made, type(made.epsilon), made.get_config()) == (same, float, same.get_config())


@pytest.mark.parametrize("attack", [AutoAttack(0.1), Square(0.1, 5)], ids=["whole", "part"])
def test_what_cannot_be_attacked_is_refused_before_anything_is_tried(attack) -> None:
    flat = filled(keras.Sequential([keras.Input((9,)), layers.Dense(CLASSES)]))
    seen = []
    for call in (attack.search, lambda *given, progress: kbl.evaluate(*given, [attack], progress=progress)):
        with pytest.raises(ValueError, match=r"Square needs images of shape \(H, W, C\)"):
            call(flat, np.zeros((3, 9)), np.zeros(3), progress=lambda *told: seen.append(told))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        attack.search(network(), X, labels("dense"), batch_size=0)
    assert not seen


def test_each_target_has_as_many_starts() -> None:
    """Three of four classes are others: a ninth target is none."""
    network = filled(
        keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(CLASSES)])
    )
    fields = {"epsilon": 1e-4, "steps": 1, "restarts": 3, "targets": 8}
    for attack, name in ((APGD(loss="margin", **fields), "target"), (FAB(**fields), "others")):
        assert attack.starts(CLASSES) == 9
        begun = (
            attack.with_numbers(attack.numbers(X.shape[1:])).begin(network, state(network, n))
            for n in range(9)
        )
        chosen = [int(ops.convert_to_numpy(each[name]).item()) for each in begun]
        assert sorted(np.unique(chosen, return_counts=True)[1]) == [3, 3, 3]


def state(network: keras.Model, restart: int) -> dict:
    x, nothing = ops.convert_to_tensor(X[:1]), ops.zeros((1,), "int32")
    y = ops.cast(ops.argmax(network(x), axis=1), "int32")
    lists = {"x": x, "y": y, "best": x, "index": nothing, "key": nothing, "restart": nothing + restart}
    no = ops.zeros((1,), "bool")
    return {**lists, "score": ops.zeros((1,)) - float("inf"), "fooled": no, "done": no}


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in GAUSSIAN])
def test_a_mistake_is_left_as_it_is(name: str) -> None:
    """The nearest image that is wrong is the image itself."""
    attack = ATTACKS[name]
    late = {"early_stop": False} if hasattr(attack, "early_stop") else {}
    wrong = labels("dense")[::5]
    outcome = replace(attack, **late).search(network(), X[::5], wrong, batch_size=8)
    np.testing.assert_array_equal(outcome.x_adv, X[::5])
    assert outcome.fooled.all()
    if attack.minimum_norm:
        np.testing.assert_array_equal(outcome.score, 0.0)


@pytest.mark.parametrize("judged", [False, True], ids=["attack", "evaluate"])
def test_a_network_is_built_where_it_is_not_yet(judged: bool) -> None:
    unbuilt = keras.Sequential([layers.Flatten(), layers.Dense(CLASSES)])
    if judged:
        kbl.evaluate(unbuilt, X, labels("dense"), [ATTACKS["fgsm"]], diagnostics=False)
    else:
        ATTACKS["fgsm"](unbuilt, X, labels("dense"))
    assert unbuilt.built
    assert np.isfinite(ops.convert_to_numpy(unbuilt(X))).all()


def test_targeted_dlr_needs_four_classes() -> None:
    three = filled(keras.Sequential([keras.Input((SIDE, SIDE, 1)), layers.Flatten(), layers.Dense(3)]))
    with pytest.raises(ValueError, match=r"needs at least 4 classes\. Received: 3 logits"):
        APGD(0.1, 3, targets=2, loss="dlr")(three, X, np.zeros(COUNT, "int32"))
