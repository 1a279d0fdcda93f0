import math

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from kbl.report.gallery import RIGHT, WRONG, difference_factor, gallery
from kbl.report.likelihood_plots import likelihood_curves, likelihood_histogram, moving_mean
from kbl.report.plots import epsilon_curve, training_curves
from kbl.report.style import ADAPTIVE, ADVERSARIAL, CLEAN, PROBE, STYLE

pytestmark = pytest.mark.once

EPOCHS = [1, 2, 3]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def colour(line):
    return to_hex(line.get_color(), keep_alpha=False).upper()


def test_training_curves_draw_percent_against_epochs():
    history = {
        "epoch": EPOCHS,
        "loss": [3, 2, 1],
        "clean_accuracy": [0.1, 0.5, 0.9],
        "adversarial_accuracy": [0.1, 0.2, 0.3],
        "val_loss": [3, 3, 2],
        "val_clean_accuracy": [0.2, 0.4, 0.8],
        "val_adversarial_accuracy": [0.1, 0.15, 0.25],
        "learning_rate": [0.1, 0.1, 0.01],
    }
    accuracy, loss = training_curves(history).axes
    drawn = lines(accuracy)
    assert set(drawn) == {
        f"{kind}, {name}" for kind in ("clean", "adversarial") for name in ("training", "validation")
    }
    assert_allclose(drawn["clean, training"].get_xydata(), [[1, 10], [2, 50], [3, 90]])
    assert_allclose(drawn["adversarial, validation"].get_ydata(), [10, 15, 25])
    assert colour(drawn["clean, training"]) == colour(drawn["clean, validation"]) == CLEAN
    assert colour(drawn["adversarial, validation"]) == ADVERSARIAL
    assert drawn["clean, training"].get_linestyle() == "--"
    assert drawn["clean, validation"].get_linestyle() == "-"
    assert_allclose(lines(loss)["training"].get_xydata(), [[1, 3], [2, 2], [3, 1]])
    assert_allclose(lines(loss)["validation"].get_ydata(), [3, 3, 2])
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy (%)")


def test_training_curves_of_natural_training_draw_what_is_there():
    accuracy, loss = training_curves({"epoch": EPOCHS, "clean_accuracy": [0.1, 0.5, 0.9]}).axes
    assert set(lines(accuracy)) == {"clean, training"}
    assert not lines(loss)
    assert loss.get_legend() is None


def test_training_curves_draw_the_probe():
    history = {"epoch": EPOCHS, "adversarial_accuracy": [0.1, 0.5, 0.9], "probe_accuracy": [0.1, 0.3, 0.0]}
    drawn = lines(training_curves(history).axes[0])
    probe = drawn["probe, validation"]
    assert_allclose(probe.get_xydata(), [[1, 10], [2, 30], [3, 0]])
    assert (colour(probe), probe.get_linestyle()) == (PROBE, "-.")


def test_training_curves_skip_what_is_not_finite():
    history = {"epoch": EPOCHS, "loss": [1.0, math.nan, math.inf], "val_clean_accuracy": [0.1, math.nan, 0.3]}
    accuracy, loss = training_curves(history).axes
    assert_allclose(lines(accuracy)["clean, validation"].get_xydata(), [[1, 10], [3, 30]])
    assert_allclose(lines(loss)["training"].get_xydata(), [[1, 1]])


def test_training_curves_of_one_epoch_have_no_tick_between_epochs():
    accuracy, _ = training_curves({"epoch": [1], "clean_accuracy": [0.5]}).axes
    assert [tick for tick in accuracy.get_xticks() if tick % 1] == []
    assert lines(accuracy)["clean, training"].get_marker() == "o"


def test_training_curves_need_epochs():
    with pytest.raises(ValueError, match=r"`epoch`. Received: \['loss'\]"):
        training_curves({"loss": [1]})


def test_likelihood_curves_draw_clean_blue_and_adversarial_orange_against_epochs():
    run = {"epoch": EPOCHS, "clean_lkd": [9, 4, 2], "adversarial_lkd": [9, 6, 5]}
    (axes,) = likelihood_curves({"": run}).axes
    drawn = lines(axes)
    assert_allclose(drawn["clean data"].get_xydata(), [[1, 9], [2, 4], [3, 2]])
    assert_allclose(drawn["adversarial examples"].get_ydata(), [9, 6, 5])
    assert colour(drawn["clean data"]) == CLEAN
    assert colour(drawn["adversarial examples"]) == ADVERSARIAL
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == r"$\mathcal{L}_{lkd}$"
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] == 0


def test_likelihood_curves_of_many_iterations_are_smoothed_over_the_raw_ones():
    steps = np.arange(5000)
    raw = 5 + np.sin(steps)
    (axes,) = likelihood_curves({"": {"step": steps, "epoch": steps, "clean_lkd": raw}}).axes
    faint, strong = axes.lines
    assert_allclose(faint.get_xydata(), np.stack([steps, raw], 1)[::3])
    assert faint.get_alpha() < 0.5
    assert_allclose(strong.get_ydata(), moving_mean(raw, 50)[::3])
    assert np.ptp(strong.get_ydata()[50:-50]) < 0.1
    assert strong.get_label().startswith("clean data (end: ")
    assert axes.get_xlabel() == "iteration"


def test_likelihood_curves_put_two_runs_side_by_side_on_one_scale():
    run = {"step": [0, 1], "clean_lkd": [4, 2]}
    left, right = likelihood_curves({"ATBLR": run, "λ = 0": {"step": [0, 1], "clean_lkd": [40, 20]}}).axes
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("ATBLR", "λ = 0")
    assert left.get_ylim() == right.get_ylim()


def test_likelihood_curves_over_many_magnitudes_say_that_the_scale_is_logarithmic():
    (axes,) = likelihood_curves({"": {"epoch": EPOCHS, "clean_lkd": [5000, 40, 2]}}).axes
    assert axes.get_yscale() == "log"
    assert "log scale" in axes.get_ylabel()


def test_likelihood_curves_survive_a_run_without_finite_values():
    (axes,) = likelihood_curves({"": {"epoch": EPOCHS, "clean_lkd": [math.nan] * 3}}).axes
    assert_allclose(lines(axes)["clean data"].get_xydata(), np.empty((0, 2)))


def test_likelihood_curves_need_a_run_and_its_steps():
    with pytest.raises(ValueError, match="`runs` needs"):
        likelihood_curves({})
    with pytest.raises(ValueError, match="Run 'a' needs `step` or `epoch`"):
        likelihood_curves({"a": {"clean_lkd": [1]}})


def test_likelihood_histogram_draws_shares_of_each_ones_own_images():
    series = {"ordinary": [4, 4, 0], "evasive": [0, 1, 1]}
    (axes,) = likelihood_histogram([-3, -2, -1, 0], [1, 1, 2], series, "score").axes
    filled, *steps = axes.patches
    assert filled.get_fill()
    assert [step.get_label() for step in steps] == ["clean images", "ordinary", "evasive"]
    assert_allclose([step.get_data().values for step in steps], [[25, 25, 50], [50, 50, 0], [0, 50, 50]])
    assert_allclose(steps[0].get_data().edges, [-3, -2, -1, 0])
    colors = [to_hex(step.get_edgecolor(), keep_alpha=False).upper() for step in steps]
    assert colors == [CLEAN, ADVERSARIAL, ADAPTIVE]
    assert len({step.get_linestyle() for step in steps[1:]}) == 2  # told apart without colour, too
    assert axes.get_xlabel() == "score"


def test_likelihood_histogram_of_an_attack_that_fooled_none_is_flat():
    (axes,) = likelihood_histogram([0, 1], [3], {"none": [0]}).axes
    assert_allclose(axes.patches[-1].get_data().values, [0])


def test_likelihood_histogram_needs_a_value_for_each_bin():
    with pytest.raises(
        ValueError, match=r"'a' needs one value for each of the 2 bins. Received: shape \(3,\)"
    ):
        likelihood_histogram([0, 1, 2], [1, 1], {"a": [1, 2, 3]})


def test_moving_mean_uses_what_is_there_at_the_ends():
    assert_allclose(moving_mean(np.array([1.0, 2.0, 6.0, 4.0]), 3), [1.5, 3.0, 4.0, 5.0])


def test_epsilon_curve_sorts_its_points_and_marks_the_radius_of_training():
    points = [{"epsilon": 0.3, "accuracy": 0.1}, {"epsilon": 0.0, "accuracy": 0.9}]
    (axes,) = epsilon_curve(points, training_epsilon=0.2, examples=100).axes
    drawn = lines(axes)
    assert_allclose(drawn["robust accuracy"].get_xydata(), [[0, 90], [0.3, 10]])
    assert_allclose(drawn["trained with ε = 0.2"].get_xdata(), [0.2, 0.2])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    at_zero = heights[np.isclose(heights[:, 0], 0), 1]
    assert_allclose([at_zero.min(), at_zero.max()], [82.563434, 94.477086], atol=1e-5)  # Wilson, 90 of 100


def test_epsilon_curve_without_training_radius_or_examples_is_one_line():
    (axes,) = epsilon_curve([{"epsilon": 0.1, "accuracy": 0.5}]).axes
    assert set(lines(axes)) == {"robust accuracy"}
    assert not axes.collections


def test_epsilon_curve_names_its_attack():
    (axes,) = epsilon_curve([{"epsilon": 0.1, "accuracy": 0.5}], attack="APGD at $1 or $2").axes
    assert set(lines(axes)) == {r"accuracy under APGD at \$1 or \$2"}


def test_epsilon_curve_states_8_bit_radii_in_255ths():
    points = [{"epsilon": level / 255, "accuracy": 0.5} for level in (0, 4, 8)]
    figure = epsilon_curve(points)
    figure.canvas.draw()
    assert "8/255" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def images(channels=1, count=3):
    x = np.full((count, 4, 4, channels), 0.5, np.float32)
    x_adv = x + np.float32(8 / 255)
    return {
        "x": x,
        "x_adv": x_adv,
        "y": np.array([0, 1, 2][:count]),
        "prediction": np.array([0, 1, 2][:count]),
        "prediction_adv": np.array([0, 2, 7][:count]),
        "confidence": np.array([0.99, 0.98, math.nan][:count]),
        "confidence_adv": np.array([0.5, 0.6, 0.7][:count]),
        "class_names": np.array(["cat", "dog", "$x$"]),
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_shows_clean_adversarial_and_enlarged_difference(channels):
    figure = gallery(images(channels))
    grid = np.array(figure.axes).reshape(3, 3)
    clean, adversarial, difference = (axes.images[0].get_array() for axes in grid[:, 0])
    assert_allclose(clean, 0.5)
    assert_allclose(adversarial, 0.5 + 8 / 255, rtol=1e-6)
    assert_allclose(difference, 0.5 + 10 * 8 / 255, rtol=1e-6)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["clean", "adversarial", "difference ×10"]
    assert grid[2, 0].get_xlabel() == "at most 8/255"
    assert [axes.get_title() for axes in grid[0]] == ["label cat", "label dog", r"label \$x\$"]


@pytest.mark.parametrize(("channels", "which"), [(2, "channel 1 of 2"), (4, "channels 1–3 of 4")])
def test_gallery_says_which_channels_it_draws(channels, which):
    given = images(channels)
    given["x_adv"][..., -1] = given["x"][..., -1]  # of the last channel nothing shows
    grid = np.array(gallery(given).axes).reshape(3, 3)
    assert_allclose(grid[1, 0].images[0].get_array(), 0.5 + 8 / 255, rtol=1e-6)
    told = [f"{row}\n{which}" for row in ("clean", "adversarial", "difference ×10")]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == told


def test_gallery_tells_right_from_wrong_in_words_and_colour():
    grid = np.array(gallery(images()).axes).reshape(3, 3)
    clean, adversarial = ([axes.xaxis.label for axes in row] for row in grid[:2])
    assert [label.get_text() for label in clean] == [
        "cat\nright (99 %)",
        "dog\nright (98 %)",
        "\\$x\\$\nright",
    ]
    assert [label.get_text() for label in adversarial] == [
        "cat\nright (50 %)",
        "\\$x\\$\nwrong (60 %)",
        "7\nwrong (70 %)",
    ]
    assert [label.get_color() for label in adversarial] == [RIGHT, WRONG, WRONG]


def test_gallery_draws_no_more_than_asked():
    assert len(gallery(images(), columns=2).axes) == 6


def test_gallery_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"x.shape=\(3, 4, 4, 1\), x_adv.shape=\(2, 4, 4, 1\)"):
        gallery(images() | {"x_adv": images()["x_adv"][:2]})


@pytest.mark.parametrize(("largest", "factor"), [(0.3, 1), (0.25, 2), (8 / 255, 10), (0.0, 1), (0.9, 1)])
def test_difference_factor(largest, factor):
    assert difference_factor(np.array([0.0, -largest])) == factor


def test_the_style_does_not_leak():
    before = {key: matplotlib.rcParams[key] for key in STYLE}
    figure = training_curves({"epoch": EPOCHS, "loss": EPOCHS})
    assert isinstance(figure, Figure)
    assert {key: matplotlib.rcParams[key] for key in STYLE} == before
