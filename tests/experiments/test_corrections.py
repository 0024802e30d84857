"""Runs of bias-corrected algorithms, and with parameters that stay at home."""

import jax
import numpy as np
import pytest

from experiments.run.checks import check_options
from experiments.run.config import Run, replaced
from experiments.run.errors import UsageError
from experiments.run.job import check, prepare
from experiments.run.runner import run
from tests.slow import slow

SMALL = replaced(Run(), dataset="digits", model="mlp", train_samples=200, test_samples=60, epochs=1)


def test_d2_is_refused_on_a_topology_on_which_it_diverges():
    on_a_ring = replaced(Run(), algorithm="d2", topology="ring", agents=8)
    message = "--algorithm: d2 diverges on this topology, whose smallest eigenvalue is -0.333 and"
    with pytest.raises(UsageError, match=f"{message} not above -0.333; give --weights lazy"):
        check(on_a_ring)
    check(replaced(on_a_ring, weights="lazy"))
    check(replaced(on_a_ring, algorithm="exact-diffusion"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "gradient-tracking", "turns": "sequential"}, "--turns: gradient-tracking"),
        ({"algorithm": "extra", "turns": "sequential"}, "--turns: extra has none; leave it out"),
        ({"algorithm": "momentum-tracking", "lag": 1}, "--lag: momentum-tracking has none"),
        ({"algorithm": "icdsgd", "lag": 1}, "--lag: icdsgd has none; leave it out, or give --alg"),
        ({"algorithm": "fedavg", "personal": ("Dense_1/.*",)}, "--personal: fedavg has none"),
        ({"lag": 1, "personal": ("Dense_1/.*",)}, "--lag: not together with --personal"),
        ({"algorithm": "gcdsgd", "own_weight": 2.0}, r"--own-weight: 2.0 is not in \[0, 1\]"),
        ({"algorithm": "icdsgd", "rounds": 0}, "--rounds: 0 is too few; give at least 1"),
    ],
)
def test_what_an_algorithm_cannot_have_is_an_error(options, message):
    with pytest.raises(UsageError, match=message):
        check_options(replaced(Run(), **options))


@pytest.mark.slow
def test_personal_parameters_are_not_sent_and_differ_from_agent_to_agent():
    whole, shared = (
        prepare(replaced(SMALL, algorithm="atc", personal=personal))
        for personal in ((), ("Dense_2/.*",))
    )
    sizes = {name: sum(x[0].size for x in jax.tree.leaves(layer))
             for name, layer in shared.state.params.items()}  # fmt: skip
    assert whole.bytes_per_step - shared.bytes_per_step == 20 * 4 * sizes["Dense_2"]
    grads = jax.tree.map(lambda x: np.arange(5.0).reshape(5, *[1] * (x.ndim - 1)) + 0 * x,
                         shared.state.params)  # fmt: skip
    mixed = shared.setting.mix(grads)
    assert np.ptp(mixed["Dense_0"]["kernel"]) < 1e-6
    np.testing.assert_array_equal(mixed["Dense_2"]["kernel"], grads["Dense_2"]["kernel"])


@pytest.mark.parametrize(
    ("personal", "message"),
    [
        (("Dense_9/.*",), "--personal: leaves: 'Dense_9/.*' matches none of 'Dense_0/bias', "),
        (("(",), r"--personal: leaves has '\(', which is no regular expression"),
        ((".*",), r"--personal: \.\* leave nothing to share; give fewer"),
    ],
)
def test_personal_parameters_that_are_none_are_an_error(personal, message):
    with pytest.raises(UsageError, match=message):
        prepare(replaced(SMALL, personal=personal))


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "exact-diffusion", "personal": ("Dense_2/.*",)},
        *slow(
            *({"algorithm": name} for name in ("gradient-tracking", "momentum-tracking", "extra")),
            {"algorithm": "gradient-tracking", "tracking_form": "atc"},
            {"algorithm": "icdsgd", "accelerated": True},
            *({"algorithm": name} for name in ("cta", "gcdsgd", "d2", "decentlam", "quasi-global")),
            {"algorithm": "quasi-global-adam", "learning_rate": 0.001},
        ),
    ],
)
@pytest.mark.slow
def test_a_run_of_an_epoch_ends_with_finite_numbers(options, tmp_path):
    ring = replaced(SMALL, topology="ring", **options)
    records = run(ring, folder=tmp_path, quiet=True)
    assert np.isfinite(records[-1]["train_loss_mean"])
    assert "consensus_bound" not in records[-1]
