"""Bounds, bytes and identities of every compressor."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from cdjax import compress
from cdjax.compress._compressor import index_width, pack, unpack
from cdjax.compress._quantizers import stochastic_round
from cdjax.compress._sparse import _cut, _joined, cosines
from tests.trees import random_stacked_tree

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(0)
# name: (compressor, whether its bound is one in expectation)
TABLE = {
    "identity": (compress.identity(), False),
    "top-k": (compress.top_k(0.1), False),
    "top-k of all": (compress.top_k(1.0), False),
    "random-k": (compress.random_k(0.2, KEY), True),
    "sign": (compress.sign(), False),
    "8 bits": (compress.quantize(8), False),
    "3 bits": (compress.quantize(3), False),
    "4 bits, stochastic": (compress.quantize(4, key=KEY), True),
    "rank 2": (compress.low_rank(2, KEY), True),
    "dct": (compress.dct_top_k(3, 4), False),
    "chunks": (compress.chunk_top_k(3, 4), False),
    "chunks in 2 bits": (compress.chunk_top_k(3, 4, value_bits=2), False),
    "bins": (compress.bin_means(4), False),
}
SHAPES = [(), (7,), (3, 2, 8)]


@pytest.fixture(params=TABLE)
def compressor(request):
    return TABLE[request.param][0]


def bounded(name):
    return [shape for shape in SHAPES if TABLE[name][0].contraction(shape) > 0]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sampled(4)
def test_the_error_contracts_by_the_bound(name, x64):
    compressor, in_expectation = TABLE[name]
    draws = 2000 if in_expectation else 20
    for shape in bounded(name):
        x = np.random.default_rng(0).standard_t(df=2, size=shape)
        rows = jnp.tile(jnp.asarray(x)[None], (draws, *[1] * len(shape)))
        if not in_expectation:
            rows = np.random.default_rng(1).standard_t(df=2, size=rows.shape)
        axes = tuple(range(1, rows.ndim))
        errors = np.sum((np.asarray(jax.jit(compressor)(rows)) - rows) ** 2, axis=axes)
        ratios = errors / np.sum(rows**2, axis=axes)
        slack = 4 * ratios.std() / math.sqrt(draws) if in_expectation else 0
        ratio = ratios.mean() if in_expectation else ratios.max()
        assert ratio <= 1 - compressor.contraction(shape) + slack + 1e-12, shape


@pytest.mark.slow
def test_the_expectation_of_random_k_is_its_bound_exactly(x64):
    # All choices of 2 of 5 entries are equally likely: each entry is left out in 3 of 5.
    x = jnp.tile(jnp.arange(1.0, 6.0)[None], (4000, 1))
    q = compress.random_k(0.4, KEY)(x)
    np.testing.assert_allclose(np.mean(q == 0, axis=0), 0.6, atol=4 * math.sqrt(0.24 / 4000))
    assert compress.random_k(0.4, KEY).contraction((5,)) == 0.4


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.sampled(3)
def test_the_bound_of_rounding_to_nearest_is_tight(bits, x64):
    most = 2 ** (bits - 1) - 1
    x = np.full((1, 50), 0.5 / most - 1e-9)  # rounded to zero, all but the largest
    x[0, 0] = 1
    compressor = compress.quantize(bits)
    ratio = np.sum((compressor(x) - x) ** 2) / np.sum(x**2)
    np.testing.assert_allclose(ratio, 1 - compressor.contraction((50,)), rtol=1e-6)


@pytest.mark.parametrize(("bits", "size"), [(2, 5), (4, 100)])
def test_the_bound_of_stochastic_rounding_is_the_worst_case_of_its_variance(bits, size, x64):
    most = 2 ** (bits - 1) - 1
    t = np.linspace(0, 1, 100_001)  # all entries but the largest are t steps
    ratios = (size - 1) * t * (1 - t) / (most**2 + (size - 1) * t**2)
    bound = 1 - compress.quantize(bits, key=KEY).contraction((size,))
    np.testing.assert_allclose(ratios.max(), bound, rtol=1e-8)


def test_stochastic_rounding_is_unbiased_exactly():
    x = jnp.array([-1.75, -1.0, -0.375, 0.0, 0.125, 2.5])
    draws = (jnp.arange(8.0) / 8)[:, None]  # every eighth: p·hi + (1 − p)·lo, by counting
    rounded = stochastic_round(x[None], draws)
    np.testing.assert_array_equal(rounded.mean(axis=0), x)
    np.testing.assert_array_equal(jnp.sort(jnp.unique(rounded[:, 2])), [-1, 0])


@pytest.mark.parametrize("bits", [2, 4, 8, 11])
@pytest.mark.sampled(4)
def test_no_entry_is_off_by_more_than_half_a_step_and_rounding_twice_is_rounding_once(bits, x64):
    x = np.random.default_rng(bits).normal(size=(3, 40))
    q = np.asarray(compress.quantize(bits)(x))
    step = np.abs(x).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert np.all(np.abs(q - x) <= step / 2 + 1e-15)
    np.testing.assert_allclose(compress.quantize(bits)(q), q, rtol=1e-14)


def test_means_of_bins_keep_each_leaf_s_sum(x64):
    x = np.random.default_rng(0).normal(size=(4, 300)) + 1
    q = np.asarray(compress.bin_means(2)(x))
    np.testing.assert_allclose(q.sum(axis=1), x.sum(axis=1), rtol=1e-14)
    assert all(len(np.unique(row)) <= 4 for row in q)


def test_signs_are_scaled_by_the_mean_magnitude():
    x = jnp.array([[1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[1.5, -1.5, 1.5, 1.5], [0, 0, 0, 0]]
    np.testing.assert_array_equal(compress.sign()(x), expected)


def test_the_largest_entries_are_sent():
    x = jnp.array([[1.0, -5.0, 3.0, 0.5]])
    np.testing.assert_array_equal(compress.top_k(0.5)(x), [[0, -5, 3, 0]])


def test_a_matrix_of_low_rank_is_sent_exactly(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 9, 2)) @ rng.normal(size=(3, 2, 7))
    np.testing.assert_allclose(compress.low_rank(2, KEY)(x), x, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_the_cosine_transform_is_orthonormal_and_scipy_s(size):
    x = np.random.default_rng(0).normal(size=(size, 3))
    np.testing.assert_allclose(
        cosines(size) @ x, scipy.fft.dct(x, axis=0, norm="ortho"), atol=1e-13
    )
    np.testing.assert_allclose(cosines(size) @ cosines(size).T, np.eye(size), atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", [False, True])
def test_chunks_are_joined_again(shape, transform, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    chunks = _cut(x, 4, transform=transform)
    np.testing.assert_allclose(_joined(chunks, shape, 4, transform=transform), x, atol=1e-14)


def test_chunks_of_a_matrix_are_squares():
    x = jnp.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(_cut(x, 3, transform=False)[0], [0, 1, 2, 6, 7, 8])


@pytest.mark.parametrize("width", [0, 1, 7, 8, 12, 21, 32])
@pytest.mark.parametrize("count", [0, 1, 64])
@pytest.mark.sampled(5)
def test_packed_numbers_are_unpacked(width, count):
    numbers = np.random.default_rng(0).integers(2**width, size=count, dtype=np.uint64)
    numbers = numbers.astype(np.uint32)
    packed = pack(jnp.asarray(numbers), width)
    assert packed.dtype == jnp.uint8 and packed.size == -(-width * count // 8)
    np.testing.assert_array_equal(unpack(packed, width, count), numbers)


@pytest.mark.parametrize(("size", "width"), [(1, 0), (2, 1), (4096, 12), (4097, 13)])
def test_an_index_has_as_many_bits_as_it_takes(size, width):
    assert index_width(size) == width


@pytest.mark.parametrize(
    ("compressor", "shape", "expected"),
    [
        (compress.identity(), (100,), 400),
        (compress.top_k(0.01), (4096,), 41 * 4 + 62),  # 12 bits an index, not the 64 of an int64
        (compress.top_k(1.0), (100,), 400),
        (compress.random_k(0.1, KEY), (100,), 10 * 4 + 8),
        (compress.sign(), (100,), 13 + 4),
        (compress.quantize(8), (100,), 100 + 4),
        (compress.quantize(4, key=KEY), (101,), 51 + 4),
        (compress.low_rank(2, KEY), (20, 30), 2 * 50 * 4),
        (compress.low_rank(2, KEY), (30,), 120),
        (compress.dct_top_k(32, 64), (64, 64), 32 * 4 + 48),
        # 64 indices of 12 bits, 64 values of 2; and the means of the leaf's four bins.
        (compress.chunk_top_k(64, 64, value_bits=2), (128, 64), 2 * 112 + 16),
        (compress.bin_means(2), (100,), 25 + 16),
    ],
)
@pytest.mark.sampled(3)
def test_a_message_has_so_many_bytes(compressor, shape, expected):
    params = {"w": jnp.zeros((3, *shape)), "count": jnp.arange(3)}
    assert compressor.message_bytes(params) == expected
    message = compressor.encode(params["w"][0], KEY)
    assert sum(x.nbytes for x in jax.tree.leaves(message)) == expected


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.sampled(5)
def test_trees_keep_their_shapes_and_dtypes_under_jit_and_zeros_stay_zeros(compressor, dtype):
    tree = random_stacked_tree(3, dtype=dtype) | {"count": jnp.arange(3)}
    q = jax.jit(compressor)(tree, 2)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert describe(q) == describe(tree)
    np.testing.assert_array_equal(q["count"], tree["count"])
    zeros = jax.jit(compressor)(jax.tree.map(jnp.zeros_like, tree), 2)
    assert not any(np.any(np.asarray(x, np.float32)) for x in jax.tree.leaves(zeros))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sampled(4)
def test_every_agent_s_leaf_is_compressed_on_its_own(name):
    compressor, _ = TABLE[name]
    tree = random_stacked_tree(3)
    changed = jax.tree.map(lambda x: x.at[0].multiply(100.0), tree)
    compressed = jax.jit(compressor)
    before, after = compressed(tree), compressed(changed)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b[1:]), before, after)


@pytest.mark.parametrize("name", ["random-k", "4 bits, stochastic", "rank 2"])
@pytest.mark.sampled(3)
def test_draws_differ_between_steps_agents_and_leaves_and_are_repeated(name):
    compressor = TABLE[name][0]
    compressed = jax.jit(compressor)
    leaf = jnp.asarray(np.random.default_rng(0).normal(size=(6, 10)), jnp.float32)
    tree = {"a": jnp.stack([leaf, leaf]), "b": jnp.stack([leaf, leaf])}
    q = compressed(tree, 0)
    assert not np.array_equal(q["a"][0], q["a"][1]) and not np.array_equal(q["a"], q["b"])
    assert not np.array_equal(q["a"], compressed(tree, 1)["a"])
    assert not np.array_equal(q["a"], jax.jit(compressor.redrawn(1))(tree, 0)["a"])
    np.testing.assert_array_equal(q["a"], compressed(tree, 0)["a"])


@pytest.mark.parametrize("name", ["top-k", "dct", "sign"])
@pytest.mark.sampled(3)
def test_the_mean_of_senders(name, x64):
    compressor, _ = TABLE[name]
    x = np.random.default_rng(0).normal(size=(5, 8))
    sent, mean = compressor.mean_of_senders(x, 0)
    np.testing.assert_allclose(sent, compressor(x), atol=1e-15)
    entries = np.asarray(sent)
    if name == "dct":
        entries = np.concatenate([entries[:, :4] @ cosines(4).T, entries[:, 4:] @ cosines(4).T], 1)
        entries[np.abs(entries) < 1e-12] = 0
    counts = np.maximum((entries != 0).sum(axis=0), 1)
    expected = entries.sum(axis=0) / counts
    if name == "dct":
        expected = np.concatenate([expected[:4] @ cosines(4), expected[4:] @ cosines(4)])
    np.testing.assert_allclose(mean, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compress.top_k(0.0), r"fraction is 0.0; it must lie in \(0, 1\]"),
        (lambda: compress.random_k(1.5, KEY), r"fraction is 1.5; it must lie in \(0, 1\]"),
        (lambda: compress.quantize(1), r"bits is 1; it must lie in \[2"),
        (lambda: compress.quantize(32), r"bits is 32; it must lie in \[2, 16\]"),
        (lambda: compress.low_rank(0, KEY), "rank is 0; it must lie in"),
        (lambda: compress.dct_top_k(0), "k is 0; it must lie in"),
        (lambda: compress.chunk_top_k(3, 0), "chunk is 0; it must lie in"),
        (lambda: compress.bin_means(20), r"bits is 20; it must lie in \[1, 16\]"),
    ],
)
def test_arguments_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
