"""The per-pixel Gaussian against SciPy and explicit inverses in float64, and Stein's estimate against simulation."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from bsdenoise.likelihood import CLAMPS, GaussianLikelihood, map_estimate, psnr_from_mse, stein_mse

CHANNELS = [1, 2, 3, 4, 5, 16]
SIGMA = 25 / 255
HEIGHT, WIDTH, BATCH = 5, 7, 3

KINDS = [(c, factor, diagonal) for c in CHANNELS for factor in ("prior", "precision") for diagonal in (False, True)]
every_kind = pytest.mark.parametrize(
    "channels, factor, diagonal",
    KINDS,
    ids=[f"{channels}-{factor}-{'diagonal' if diagonal else 'full'}" for channels, factor, diagonal in KINDS],
)
both_factors = pytest.mark.parametrize("factor", ["prior", "precision"])


def random_outputs(model, spread=1.0, seed=0, shape=(BATCH, HEIGHT, WIDTH)):
    """Outputs and noisy images as a trained network has them: clean colours that vary less than the noise, or more.

    Without the clamp the precision factor can stand for less variance than the noise has; at a spread of 1 it does
    so now and then, at a spread of 0.1 it does not.
    """
    rng = np.random.default_rng(seed)
    raw = spread * rng.standard_normal((*shape, model.num_outputs))
    if model.factor == "prior":
        raw *= 0.1
    raw[..., : model.channels] = rng.uniform(0.0, 1.0, (*shape, model.channels))
    noisy = raw[..., : model.channels] + 0.2 * rng.standard_normal((*shape, model.channels))
    return raw.astype("float32"), noisy.astype("float32")


def pixels(array):
    """(B, H, W, ...) as (N, ...) in float64."""
    array = np.asarray(array, float)
    return array.reshape(-1, *array.shape[3:])


def twin(model, outputs, sigma):
    """μ, Σ_p and Σ_y in float64; `sigma` a number or (B,)."""
    per_pixel = np.broadcast_to(np.reshape(sigma, (-1, 1, 1)), outputs.shape[:3]).ravel()
    return reference.covariances(pixels(outputs), model.channels, model.factor, per_pixel, model.diagonal)


# --- likelihood ----------------------------------------------------------------------------------------------------


@every_kind
def test_num_outputs(channels, factor, diagonal):
    assert GaussianLikelihood(channels, factor, diagonal).num_outputs == reference.num_outputs(channels, diagonal)


@every_kind
def test_nll_is_that_of_scipy(channels, factor, diagonal):
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model, spread=0.3)
    nll = model.nll(outputs, noisy, SIGMA)
    assert nll.shape == (BATCH, HEIGHT, WIDTH)
    mean, _, noisy_cov = twin(model, outputs, SIGMA)
    expected = [
        -multivariate_normal.logpdf(y, mu, cov) - 0.5 * channels * np.log(2.0 * np.pi)
        for y, mu, cov in zip(pixels(noisy), mean, noisy_cov, strict=True)
    ]
    if factor == "precision":  # there Eq. 1 clamps the determinant: the next test
        expected = np.where(np.linalg.slogdet(noisy_cov)[1] < -2.0 * np.log(1e-8), expected, pixels(nll))
        assert np.mean(expected == pixels(nll)) < 0.1
    np.testing.assert_allclose(pixels(nll), expected, rtol=1e-4, atol=2e-3 if channels > 4 else 1e-4)


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_precision_nll_is_equation_1(channels, diagonal):
    model = GaussianLikelihood(channels, "precision", diagonal)
    outputs, noisy = random_outputs(model)
    expected = reference.paper_nll(pixels(outputs), pixels(noisy), channels, diagonal)
    np.testing.assert_allclose(pixels(model.nll(outputs, noisy, SIGMA)), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("channels", [5, 16])
def test_determinant_is_clamped(channels, diagonal):
    """With so flat a factor |A| is under 1e-8, and the clamp of Eq. 1 counts."""
    model = GaussianLikelihood(channels, "precision", diagonal)
    outputs, noisy = random_outputs(model)
    outputs[..., channels:] -= 16.0
    _, matrices = reference.read_outputs(pixels(outputs), channels, "precision", diagonal)
    assert (np.prod(np.diagonal(matrices, axis1=1, axis2=2), axis=1) < 1e-8).all()
    nll = pixels(model.nll(outputs, noisy, SIGMA))
    expected = reference.paper_nll(pixels(outputs), pixels(noisy), channels, diagonal)
    np.testing.assert_allclose(nll, expected, rtol=1e-4)
    assert (nll >= -np.log(1e-8) - 1e-4).all()


def test_precision_nll_needs_no_sigma():
    model = GaussianLikelihood(3, "precision")
    outputs, noisy = random_outputs(model)
    np.testing.assert_array_equal(model.nll(outputs, noisy, 0.01), model.nll(outputs, noisy, 0.5))


@both_factors
def test_nll_is_least_at_the_truth(factor):
    """Pixels drawn from the model: any other covariance or mean has a greater mean NLL."""
    rng = np.random.default_rng(0)
    true_cov, sigma, count = np.array([[0.02, 0.012], [0.012, 0.03]]), 0.1, 40_000
    noisy = rng.multivariate_normal([0.4, 0.6], true_cov + sigma**2 * np.eye(2), count)
    model = GaussianLikelihood(2, factor)

    def mean_nll(shift, scale):
        outputs = predict([0.4 + shift, 0.6], scale * true_cov, sigma, factor, count)
        return float(np.mean(model.nll(outputs, noisy.astype("float32")[None, None], sigma)))

    at_truth = mean_nll(0.0, 1.0)
    for shift, scale in [(0.05, 1.0), (-0.05, 1.0), (0.0, 0.5), (0.0, 2.0)]:
        assert mean_nll(shift, scale) > at_truth + 0.005


def predict(mean, prior_cov, sigma, factor, count):
    """Outputs (1, 1, count, n) that stand for one mean and one Σ_p at every pixel."""
    channels = len(mean)
    if factor == "prior":
        matrix = np.linalg.cholesky(prior_cov)
    else:
        matrix = reference.precision_factor(prior_cov + sigma**2 * np.eye(channels))
    outputs = reference.write_outputs(np.broadcast_to(mean, (count, channels)), matrix, factor)
    return outputs.astype("float32")[None, None]


@both_factors
@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
def test_zero_outputs_are_far_from_zero_variance(factor, diagonal):
    """A factor of zero would have no gradient and stay zero: MAP would equal the mean for ever."""
    model = GaussianLikelihood(3, factor, diagonal)
    outputs, noisy = tf.zeros((1, 2, 2, model.num_outputs)), tf.fill((1, 2, 2, 3), 0.3)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = tf.reduce_sum(model.nll(outputs, noisy, 0.05))
    assert np.abs(tape.gradient(loss, outputs).numpy()).min(axis=(0, 1, 2)).all()
    _, _, noisy_cov = reference.covariances(np.zeros((1, model.num_outputs)), 3, factor, 0.05, diagonal)
    expected = 0.1**2 + (0.05**2 if factor == "prior" else 0.0)
    np.testing.assert_allclose(noisy_cov[0], expected * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(
        model.posterior_covariance(outputs, 0.05)[0, 0, 0],
        np.eye(3) / (1 / 0.05**2 + 1 / (expected - 0.05**2)),
        rtol=1e-4,
        atol=1e-8,
    )


# --- MAP and posterior ---------------------------------------------------------------------------------------------

SIGMAS = [SIGMA, np.array([0.02, 0.1, 0.3])]
sigmas = pytest.mark.parametrize("sigma", SIGMAS, ids=["one", "per-image"])


@every_kind
@sigmas
def test_map_and_posterior_covariance_are_the_explicit_ones(channels, factor, diagonal, sigma):
    """(Σ_p⁻¹ + σ⁻²I)⁻¹ and (Σ_p⁻¹ + σ⁻²I)⁻¹ (Σ_p⁻¹ μ + σ⁻² x̃), wherever the prediction has a Σ_p."""
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model, spread=0.3)
    if factor == "precision":
        outputs[..., channels:] -= 4.0 * on_diagonal(model)  # wider than most of the noise
    mean, prior_cov, _ = twin(model, outputs, sigma)
    per_pixel = np.broadcast_to(np.reshape(sigma, (-1, 1, 1)), noisy.shape[:3]).ravel()
    has_prior = np.linalg.eigvalsh(prior_cov)[:, 0] > 1e-5
    assert has_prior.mean() > 0.3
    denoised = model.map_estimate(outputs, noisy, sigma)
    cov = model.posterior_covariance(outputs, sigma)
    assert denoised.shape == noisy.shape and cov.shape == (*noisy.shape, channels)
    mean, prior_cov, observed, per_pixel = (a[has_prior] for a in (mean, prior_cov, pixels(noisy), per_pixel))
    expected = reference.explicit_map(mean, prior_cov, observed, per_pixel)
    np.testing.assert_allclose(pixels(denoised)[has_prior], expected, rtol=1e-4, atol=1e-5 if channels <= 4 else 3e-4)
    expected = reference.explicit_posterior_cov(prior_cov, per_pixel)
    np.testing.assert_allclose(pixels(cov)[has_prior], expected, rtol=1e-4, atol=1e-6)


def on_diagonal(model):
    """Which outputs behind the mean are on the factor's diagonal."""
    rows, columns = np.diag_indices(model.channels) if model.diagonal else np.tril_indices(model.channels)
    return rows == columns


@every_kind
@sigmas
def test_moments_agree_with_each_other(channels, factor, diagonal, sigma):
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model)
    denoised, mean, variance = model.moments(outputs, noisy, sigma)
    np.testing.assert_array_equal(mean, outputs[..., :channels])
    np.testing.assert_allclose(denoised, model.map_estimate(outputs, noisy, sigma), atol=1e-6)
    cov = np.asarray(model.posterior_covariance(outputs, sigma))
    np.testing.assert_allclose(variance, np.diagonal(cov, axis1=3, axis2=4), atol=1e-6)


@every_kind
def test_no_noise_gives_the_observation(channels, factor, diagonal):
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model, spread=0.3)
    _, prior_cov, _ = twin(model, outputs, 0.0)
    wide = np.linalg.eigvalsh(prior_cov)[:, 0] > 1e-4  # a prediction surer than the observation keeps its say
    assert wide.mean() > 0.3
    for sigma in (0.0, 1e-6, 1e-5):
        denoised, _, variance = model.moments(outputs, noisy, sigma)
        np.testing.assert_allclose(pixels(denoised)[wide], pixels(noisy)[wide], atol=1e-6)
        np.testing.assert_allclose(pixels(variance)[wide], max(sigma, 1e-6) ** 2, rtol=1e-4)


@every_kind
def test_endless_noise_gives_the_mean(channels, factor, diagonal):
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model)
    denoised, mean, variance = model.moments(outputs, noisy, 1e3)
    np.testing.assert_allclose(denoised, mean, atol=1e-4)
    _, prior_cov, _ = twin(model, outputs, 1e3)
    if factor == "prior":  # the precision factor's Σ_p is nothing at such a σ
        expected = np.diagonal(prior_cov, axis1=1, axis2=2)
        np.testing.assert_allclose(pixels(variance), expected, atol=0.5)  # of σ² = 1e6


@both_factors
def test_sigma_per_image_and_per_pixel(factor):
    """A number, one per image and a map are the same thing."""
    model = GaussianLikelihood(3, factor)
    outputs, noisy = random_outputs(model)
    sigma = np.array([0.05, 0.1, 0.2], "float32")
    sigma_map = np.broadcast_to(sigma[:, None, None], noisy.shape[:3])
    for method in (model.nll, model.map_estimate, lambda *args: model.moments(*args)[2]):
        one_by_one = [method(outputs[i : i + 1], noisy[i : i + 1], float(sigma[i])) for i in range(BATCH)]
        np.testing.assert_allclose(method(outputs, noisy, sigma), np.concatenate(one_by_one), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(method(outputs, noisy, sigma), method(outputs, noisy, sigma_map))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (3, 5, 7, 1)], ids=str)
def test_sigma_of_another_shape(shape):
    model = GaussianLikelihood(3)
    outputs, noisy = random_outputs(model)
    with pytest.raises(ValueError, match=r"`sigma` must be a number, \(B,\) or \(B, H, W\)\. Received: shape="):
        model.map_estimate(outputs, noisy, np.full(shape, 0.1))


def test_public_map_estimate():
    for options in ({}, {"factor": "precision"}, {"diagonal": True}, {"factor": "precision", "clamp": "diagonal"}):
        model = GaussianLikelihood(3, **options)
        outputs, noisy = random_outputs(model)
        expected = model.map_estimate(outputs, noisy, SIGMA)
        np.testing.assert_array_equal(map_estimate(outputs, noisy, SIGMA, **options), expected)


@both_factors
def test_half_precision_in_float32_out(factor):
    """Outputs and images may come in bfloat16; everything after is float32."""
    model = GaussianLikelihood(3, factor)
    outputs, noisy = (tf.cast(array, "bfloat16") for array in random_outputs(model))
    full = model.moments(tf.cast(outputs, "float32"), tf.cast(noisy, "float32"), SIGMA)
    for one, other in zip(model.moments(outputs, noisy, SIGMA), full, strict=True):
        assert keras.backend.standardize_dtype(one.dtype) == "float32"
        np.testing.assert_array_equal(one, other)
    nll = model.nll(outputs, noisy, SIGMA)
    assert keras.backend.standardize_dtype(nll.dtype) == "float32"
    np.testing.assert_array_equal(nll, model.nll(tf.cast(outputs, "float32"), tf.cast(noisy, "float32"), SIGMA))


@both_factors
@pytest.mark.parametrize("channels", [3, 5])
def test_one_graph_serves_all_sizes(factor, channels):
    model = GaussianLikelihood(channels, factor)
    graph = tf.function(
        model.moments,
        input_signature=[
            tf.TensorSpec([None, None, None, model.num_outputs]),
            tf.TensorSpec([None, None, None, channels]),
            tf.TensorSpec([None]),
        ],
    )
    for shape in [(1, 1, 1), (2, 3, 4)]:
        outputs, noisy = random_outputs(model, shape=shape)
        sigma = np.linspace(0.05, 0.2, shape[0], dtype="float32")
        for one, other in zip(graph(outputs, noisy, sigma), model.moments(outputs, noisy, sigma), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# --- the clamp -----------------------------------------------------------------------------------------------------


def outputs_for_noisy_cov(noisy_cov, count=1):
    """Precision-factor outputs for one Σ_y and a mean of zero."""
    matrix = reference.precision_factor(np.asarray(noisy_cov, float))
    return reference.write_outputs(np.zeros((count, len(matrix))), matrix, "precision").astype("float32")[None, None]


def gain_eigenvalues(model, outputs, sigma):
    gains = reference.gains(pixels(model.posterior_covariance(outputs, sigma)), sigma)
    return np.linalg.eigvalsh((gains + gains.transpose(0, 2, 1)) / 2.0)


def test_clamp_of_the_design_example():
    """Σ_y/σ² = [[1.05, .8], [.8, 1.6]]: the paper's clamp leaves a gain eigenvalue of 2.09."""
    sigma = 0.1
    noisy_cov = sigma**2 * np.array([[1.05, 0.8], [0.8, 1.6]])
    outputs = outputs_for_noisy_cov(noisy_cov)
    unclamped = np.linalg.eigvalsh(sigma**2 * np.linalg.inv(noisy_cov))
    assert unclamped[-1] == pytest.approx(2.09, abs=0.005)

    def eigenvalues(clamp):
        return gain_eigenvalues(GaussianLikelihood(2, "precision", clamp=clamp), outputs, sigma)[0]

    np.testing.assert_allclose(eigenvalues("none"), unclamped, rtol=1e-3)
    np.testing.assert_allclose(eigenvalues("diagonal"), unclamped, rtol=1e-3)
    assert eigenvalues("eigenvalue")[-1] <= 1.0 + 1e-5
    # Σ_p/σ² = [[.05, .8], [.8, .6]] becomes [[.05, √.03], [√.03, .6]].
    mended = np.eye(2) + np.array([[0.05, 0.03**0.5], [0.03**0.5, 0.6]])
    np.testing.assert_allclose(eigenvalues("eigenvalue"), np.linalg.eigvalsh(np.linalg.inv(mended)), rtol=1e-3)


def test_diagonal_clamp_is_that_of_the_paper():
    """Only the diagonal of Σ_p = Σ_y − σ²I is raised to zero."""
    sigma = 0.1
    noisy_cov = sigma**2 * np.array([[0.7, 0.3], [0.3, 1.6]])
    outputs = outputs_for_noisy_cov(noisy_cov)
    clamped = np.where(np.eye(2) == 1.0, np.maximum(noisy_cov, sigma**2), noisy_cov)
    expected = sigma**2 * (np.eye(2) - sigma**2 * np.linalg.inv(clamped))
    model = GaussianLikelihood(2, "precision", clamp="diagonal")
    np.testing.assert_allclose(model.posterior_covariance(outputs, sigma)[0, 0, 0], expected, rtol=1e-3, atol=1e-7)


@every_kind
@pytest.mark.parametrize("sigma", [1e-3, 5 / 255, SIGMA, 1.0])
def test_gain_eigenvalues_are_at_most_one(channels, factor, diagonal, sigma):
    model = GaussianLikelihood(channels, factor, diagonal)
    for spread in (0.1, 1.0, 10.0, 300.0):
        outputs, _ = random_outputs(model, spread, shape=(1, 1, 400))
        eigenvalues = gain_eigenvalues(model, outputs, sigma)
        assert eigenvalues.max() <= 1.0 + 1e-4
        assert eigenvalues.min() >= -1e-5


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_without_a_clamp_gains_exceed_one(channels):
    """So the test above can fail: the same outputs, mended as in the paper or not at all."""
    for clamp in ("diagonal", "none"):
        model = GaussianLikelihood(channels, "precision", clamp=clamp)
        outputs, _ = random_outputs(model, 10.0, shape=(1, 1, 400))
        assert gain_eigenvalues(model, outputs, SIGMA).max() > 1.5


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_clamp_changes_nothing_where_none_is_needed(channels, diagonal):
    models = [GaussianLikelihood(channels, "precision", diagonal, clamp) for clamp in CLAMPS]
    outputs, noisy = random_outputs(models[0], spread=0.3)
    sigma = 0.02
    _, prior_cov, _ = twin(models[0], outputs, sigma)
    fine = np.linalg.eigvalsh(prior_cov)[:, 0] > 1e-4
    assert fine.mean() > 0.3
    clamped, paper, unclamped = ([pixels(m)[fine] for m in model.moments(outputs, noisy, sigma)] for model in models)
    for one, two, three in zip(clamped, paper, unclamped, strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(two, three, rtol=1e-3, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["prior", "precision"]),
    st.floats(1e-3, 1.0),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**31),
)
def test_denoised_is_between_in_the_eigenvectors_frame(channels, diagonal, factor, sigma, spread, seed):
    """Along every eigenvector of G, x̂ lies between x̃ and μ: 0 ≤ eigenvalue ≤ 1, so x̂ − x̃ is no longer than μ − x̃."""
    model = GaussianLikelihood(channels, factor, diagonal)
    outputs, noisy = random_outputs(model, spread, seed, (1, 2, 3))
    denoised, mean, variance = (np.asarray(moment, float) for moment in model.moments(outputs, noisy, sigma))
    step, whole = (np.linalg.norm(noisy - point, axis=-1) for point in (denoised, mean))
    assert (step <= whole * (1.0 + 1e-4) + 1e-6).all()
    assert (np.linalg.norm(denoised - mean, axis=-1) <= whole * (1.0 + 1e-4) + 1e-6).all()
    assert (variance >= -1e-5 * sigma**2).all() and (variance <= sigma**2 * (1.0 + 1e-5)).all()


# --- extremes ------------------------------------------------------------------------------------------------------

EXTREMES = [0.0, 1e-30, 1.0, 1e3, 1e10, 1e30]


@pytest.mark.parametrize("factor, clamp", [("prior", "eigenvalue"), *(("precision", clamp) for clamp in CLAMPS)])
@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_extreme_outputs_stay_finite(channels, factor, diagonal, clamp):
    """Raw outputs of ±1e30, ±1e-30 and the like, mixed at random: values and gradients are finite."""
    model = GaussianLikelihood(channels, factor, diagonal, clamp)
    rng = np.random.default_rng(0)
    shape = (1, 1, 300)
    noisy = tf.constant(rng.uniform(-1.0, 2.0, (*shape, channels)).astype("float32"))
    for jitter in (False, True):
        raw = rng.choice(EXTREMES, (*shape, model.num_outputs)) * rng.choice([-1.0, 1.0], (*shape, model.num_outputs))
        if jitter:
            raw *= rng.uniform(0.5, 1.0, raw.shape)
        outputs = tf.constant(raw.astype("float32"))
        for sigma in (0.0, 1e-6, 1e-3, 0.1, 1.0):
            with tf.GradientTape() as tape:
                tape.watch(outputs)
                nll = model.nll(outputs, noisy, sigma)
            denoised, mean, variance = model.moments(outputs, noisy, sigma)
            for name, value in {
                "nll": nll,
                "gradient": tape.gradient(nll, outputs),
                "map": model.map_estimate(outputs, noisy, sigma),
                "variance": variance,
                "denoised": denoised,
                "mean": mean,
                "error": stein_mse(denoised, noisy, sigma, variance),
            }.items():
                assert np.isfinite(np.asarray(value)).all(), (name, sigma, jitter)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=9, max_size=9), st.floats(0.0, 1.0), st.booleans())
@example([0.0] * 9, 0.0, False)
@example([0.5, 0.5, 0.5, 0.0, 1e30, 0.0, -1e30, 1e30, 0.0], 1e-6, True)
def test_any_outputs_stay_finite(raw, sigma, precision):
    model = GaussianLikelihood(3, "precision" if precision else "prior")
    outputs, noisy = tf.constant([[[raw]]], "float32"), tf.constant([[[[0.0, 0.5, 1.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        nll = model.nll(outputs, noisy, sigma)
    for value in (nll, tape.gradient(nll, outputs), *model.moments(outputs, noisy, sigma)):
        assert np.isfinite(value.numpy()).all()


# --- quality without a clean image ---------------------------------------------------------------------------------

TRUE_COV = np.array([[0.010, 0.006, 0.004], [0.006, 0.012, 0.005], [0.004, 0.005, 0.008]])
SIDE = 640  # 409,600 pixels


@pytest.fixture(scope="module")
def simulated():
    """Clean and noisy pixels (1, 640, 640, 3) with mean 0.5 and covariance TRUE_COV, σ = 25/255."""
    rng = np.random.default_rng(0)
    clean = 0.5 + rng.standard_normal((SIDE * SIDE, 3)) @ np.linalg.cholesky(TRUE_COV).T
    noisy = clean + SIGMA * rng.standard_normal(clean.shape)
    return [array.reshape(1, SIDE, SIDE, 3).astype("float32") for array in (clean, noisy)]


PREDICTIONS = {  # mean, Σ_y
    "right": (0.5, TRUE_COV + SIGMA**2 * np.eye(3)),
    "wrong-mean": (0.42, TRUE_COV + SIGMA**2 * np.eye(3)),
    "too-wide": (0.5, 3.0 * TRUE_COV + SIGMA**2 * np.eye(3)),
    "uncorrelated": (0.45, np.diag([0.005, 0.02, 0.001]) + SIGMA**2 * np.eye(3)),
}
CLAMPED_PREDICTIONS = {
    "overconfident": (0.5, 0.4 * (TRUE_COV + SIGMA**2 * np.eye(3))),
    "too-correlated": (0.45, SIGMA**2 * np.array([[1.05, 0.8, 0.1], [0.8, 1.6, 0.2], [0.1, 0.2, 1.3]])),
}


def predict_simulated(mean, noisy_cov, factor):
    if factor == "prior":
        matrix = np.linalg.cholesky(noisy_cov - SIGMA**2 * np.eye(3))
    else:
        matrix = reference.precision_factor(noisy_cov)
    outputs = reference.write_outputs(np.full((SIDE * SIDE, 3), mean), matrix, factor)
    return outputs.reshape(1, SIDE, SIDE, 9).astype("float32")


def stein_error(clean, noisy, denoised, variance):
    """The estimate of the squared error minus the true one, in standard errors of that difference; and the true one."""
    estimate = float(stein_mse(denoised, noisy, SIGMA, variance)[0])
    squared_error = np.mean((np.asarray(denoised, float) - clean) ** 2, axis=-1)
    differences = reference.stein_mse(denoised, noisy, SIGMA, variance) - squared_error
    assert estimate == pytest.approx(differences.mean() + squared_error.mean(), rel=1e-3)
    standard_error = differences.std() / np.sqrt(differences.size)
    assert standard_error < 0.01 * squared_error.mean()
    return differences.mean() / standard_error, squared_error.mean()


@pytest.mark.parametrize("factor, clamp", [("prior", "eigenvalue"), *(("precision", clamp) for clamp in CLAMPS)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_stein_is_unbiased(simulated, prediction, factor, clamp):
    """For a right and for a wrong mean and covariance."""
    model = GaussianLikelihood(3, factor, clamp=clamp)
    outputs = predict_simulated(*PREDICTIONS[prediction], factor)
    denoised, _, variance = model.moments(outputs, simulated[1], SIGMA)
    error, _ = stein_error(*simulated, denoised, variance)
    assert abs(error) < 3.5


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("prediction", CLAMPED_PREDICTIONS)
def test_stein_is_unbiased_where_the_clamp_acts(simulated, prediction, clamp):
    """Whatever the gain, if the variance is that of the gain applied; without a clamp parts of it are negative."""
    model = GaussianLikelihood(3, "precision", clamp=clamp)
    outputs = predict_simulated(*CLAMPED_PREDICTIONS[prediction], "precision")
    denoised, _, variance = model.moments(outputs, simulated[1], SIGMA)
    assert (gain_eigenvalues(model, outputs[:, :1, :1], SIGMA).max() > 1.2) == (clamp != "eigenvalue")
    error, _ = stein_error(*simulated, denoised, variance)
    assert abs(error) < 3.5


@pytest.mark.parametrize("prediction", CLAMPED_PREDICTIONS)
def test_stein_is_biased_with_the_gain_before_the_clamp(simulated, prediction):
    """Why `stein_mse` takes the variance of the gain that was applied."""
    outputs = predict_simulated(*CLAMPED_PREDICTIONS[prediction], "precision")
    denoised = GaussianLikelihood(3, "precision").map_estimate(outputs, simulated[1], SIGMA)
    _, _, unclamped = GaussianLikelihood(3, "precision", clamp="none").moments(outputs, simulated[1], SIGMA)
    error, true_mse = stein_error(*simulated, denoised, unclamped)
    assert error < -20.0
    estimate = float(stein_mse(denoised, simulated[1], SIGMA, unclamped)[0])
    assert abs(estimate - true_mse) > 0.3 * true_mse


@both_factors
def test_stein_is_unbiased_for_predictions_that_vary(simulated, factor):
    """Another mean and another covariance at every pixel."""
    model = GaussianLikelihood(3, factor)
    outputs, _ = random_outputs(model, shape=(1, SIDE, SIDE), spread=0.7)
    outputs[..., :3] = 0.5 + 0.2 * (outputs[..., :3] - 0.5)
    denoised, _, variance = model.moments(outputs, simulated[1], SIGMA)
    error, _ = stein_error(*simulated, denoised, variance)
    assert abs(error) < 3.5


def test_posterior_variance_is_the_squared_error(simulated):
    """For the right prediction, the posterior covariance is that of the error, channel by channel."""
    model = GaussianLikelihood(3)
    outputs = predict_simulated(*PREDICTIONS["right"], "prior")
    error = pixels(model.map_estimate(outputs, simulated[1], SIGMA)) - pixels(simulated[0])
    cov = np.asarray(model.posterior_covariance(outputs[:, :1, :1], SIGMA))[0, 0, 0]
    np.testing.assert_allclose(error.T @ error / len(error), cov, rtol=0.01, atol=0.01 * cov.max())


def test_stein_per_image():
    rng = np.random.default_rng(0)
    noisy, denoised, variance = rng.uniform(0.0, 0.1, (3, 2, 5, 6, 2)).astype("float32")
    sigma = np.array([0.05, 0.2], "float32")
    expected = [reference.stein_mse(denoised[i], noisy[i], float(sigma[i]), variance[i]).mean() for i in range(2)]
    np.testing.assert_allclose(stein_mse(denoised, noisy, sigma, variance), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "mse, psnr", [(1e-2, 20.0), (1e-4, 40.0), (1.0, 0.0), (0.0, np.nan), (-0.004, np.nan), (1e-30, np.nan)]
)
def test_psnr_from_mse(mse, psnr):
    np.testing.assert_allclose(psnr_from_mse(np.float32(mse)), psnr, atol=1e-3)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [0, -1, 1.5, "3"], ids=repr)
def test_wrong_channels(channels):
    with pytest.raises(ValueError, match="`channels` must be a positive integer. Received: channels="):
        GaussianLikelihood(channels)


def test_wrong_factor():
    with pytest.raises(ValueError, match="`factor` must be one of .*'prior', 'precision'.* factor='covariance'"):
        GaussianLikelihood(3, "covariance")


def test_wrong_clamp():
    with pytest.raises(ValueError, match="`clamp` must be one of .*'eigenvalue'.* clamp='hard'"):
        GaussianLikelihood(3, "precision", clamp="hard")
