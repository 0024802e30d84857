import numpy as np
import pytest

from experiments.network.config import Networks
from experiments.network.study import ROWS, compare, seconds_to
from experiments.run import config
from experiments.run.errors import UsageError


def small(**options):
    # Two epochs are 32 steps: rounds of 10 do end.
    data = config.Data(dataset="digits", train_samples=512, test_samples=64)
    training = config.Training(epochs=2, batch_size=8)
    return Networks(training=training, data=data, model=config.Model(model="softmax"), agents=4,
                    seeds=1, tune_seeds=1, learning_rates=(0.1, 0.3, 1.0), target=20.0,
                    **options)  # fmt: skip


@pytest.mark.slow
def test_training_is_done_once_and_timed_on_every_network(tmp_path):
    found = compare(small(out=tmp_path, networks=("datacenter", "home"), stragglers=0.0))
    assert [*found] == ["datacenter", "home"] and [*found["home"]] == [*ROWS]
    for name in ROWS:
        (near,), (far,) = found["datacenter"][name], found["home"][name]
        assert [r["test_accuracy"] for r in near] == [r["test_accuracy"] for r in far]
        assert all(a["simulated_seconds"] <= b["simulated_seconds"]
                   for a, b in zip(near, far, strict=True))  # fmt: skip
    # Messages of 123 kB, one way 0.454 ms: consensus hides them behind 20 ms, others do not.
    (ring,), (combined,) = (found["datacenter"][f"{name}, ring"] for name in
                            ("CDMSGD", "adapt then combine"))  # fmt: skip
    message = 4 * 30_730 / (9.53e9 / 8)
    assert ring[-1]["simulated_seconds"] == pytest.approx(0.02 * ring[-1]["step"], rel=1e-6)
    expected = (0.02 + 0.454e-3 + 2 * message) * combined[-1]["step"]
    assert combined[-1]["simulated_seconds"] == pytest.approx(expected, rel=1e-6)
    table = (tmp_path / "table.md").read_text()
    tuned = {path.parent.name.rpartition("-")[2] for path in tmp_path.glob("*/metrics.jsonl")}
    assert tuned == {"0", "1000"}  # the seed that is reported, and the one that chooses
    assert "datacenter: s per step" in table and "SGD, gradients averaged" in table
    assert (tmp_path / "network.png").stat().st_size > 5000
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    compare(small(out=tmp_path, networks=("wide-area",)))
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}


def test_seconds_to_a_target_are_those_of_the_first_record_above_it():
    records = [{"test_accuracy": a, "simulated_seconds": s} for a, s in [(0.5, 3.0), (0.8, 6.0)]]
    assert seconds_to(records, 80.0) == 6.0
    assert seconds_to(records, 81.0) == np.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [({"networks": ("moon",)}, "--network: 'moon' is neither"),
     ({"networks": ()}, "--networks, --learning-rates: some"),
     ({"compute_time": "20"}, "--compute-time: '20': it has no unit")],
)  # fmt: skip
def test_bad_options_are_named(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(small(out=tmp_path, **options))
