import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState as FlaxState

from cdjax import checkpoint, sharding
from cdjax.training import TrainState

pytestmark = pytest.mark.sampled(2)

NUM_AGENTS = 8


def make_state(seed=0):
    """Leaves of several dtypes, an optimizer's NamedTuples, a typed key, and no model state."""
    key = jax.random.key(seed)
    params = {
        "kernel": jax.random.normal(key, (NUM_AGENTS, 5, 3)),
        "bias": jax.random.normal(key, (NUM_AGENTS, 3)).astype(jnp.bfloat16),
        "count": jnp.arange(NUM_AGENTS),
    }
    opt_state = optax.adam(1e-3).init(params)
    return TrainState(jnp.int32(seed), params, opt_state, {}, jax.random.key(seed + 1))


def bits(tree):
    leaves = jax.tree.leaves(tree)
    is_key = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    arrays = [jax.random.key_data(x) if k else x for x, k in zip(leaves, is_key, strict=True)]
    dtypes = [str(x.dtype) for x in leaves]
    return jax.tree.structure(tree), [
        *zip(dtypes, [np.asarray(x).tobytes() for x in arrays], strict=True)
    ]


def save_steps(folder, *steps, keep=10, scores=None):
    with checkpoint.writing(folder, keep=keep) as checkpoints:
        for step in steps:
            score = scores and scores[step]
            checkpoint.save(checkpoints, step, make_state(step), notes={"at": step}, score=score)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of three checkpoints, to be read only."""
    folder = tmp_path_factory.mktemp("saved")
    save_steps(folder, 1, 2, 3)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "copied")


@pytest.mark.accelerator
def test_a_state_comes_back_bit_by_bit_with_its_notes(saved):
    like = jax.eval_shape(make_state)
    assert bits(checkpoint.restore(saved, 3, like=like)) == bits(make_state(3))
    assert checkpoint.find(saved) == checkpoint.Found(3, {"at": 3}, {})


def test_a_save_holds_the_state_of_the_call_although_a_loop_consumes_it(tmp_path):
    consume = jax.jit(lambda state: jax.tree.map(lambda x: 2 * x + 1, state), donate_argnums=0)
    with checkpoint.writing(tmp_path) as checkpoints:
        state = {"x": jnp.arange(1_000_000.0)}
        checkpoint.save(checkpoints, 0, state)
        for _ in range(3):
            state = consume(state)
    saved = checkpoint.restore(tmp_path, 0, like=state)
    np.testing.assert_array_equal(saved["x"], np.arange(1_000_000.0))


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.8, 4: None, 5: 0.3, 6: 0.2}
    save_steps(tmp_path, *scores, keep=2, scores=scores)
    assert checkpoint.steps(tmp_path) == [2, 5, 6]


@pytest.mark.parametrize("score, kept", [(None, [3, 4]), (0.5, [1, 3, 4])])
def test_without_scores_none_is_the_best_and_of_equal_scores_one_is(score, kept, tmp_path):
    scores = dict.fromkeys((1, 2, 3, 4), score)
    save_steps(tmp_path, *scores, keep=2, scores=scores)
    assert checkpoint.steps(tmp_path) == kept


def test_a_save_of_the_same_step_replaces_the_first(tmp_path):
    with checkpoint.writing(tmp_path) as checkpoints:
        for seed in (1, 2):
            checkpoint.save(checkpoints, 7, make_state(seed))
    assert bits(checkpoint.restore(tmp_path, 7, like=make_state())) == bits(make_state(2))


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def truncate(folder):
    path = largest_file(folder / "state")
    path.write_bytes(path.read_bytes()[:-1])


def garble(folder):
    path = largest_file(folder / "state")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose(folder):
    largest_file(folder / "state").unlink()


def garble_notes(folder):
    (folder / "notes" / "notes.json").write_text('{"notes": {"at": 4}, "score": null}')


def lose_sums(folder):
    (folder / "checksums.json").unlink()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"state/.* has \d+ bytes, not \d+"),
        (garble, "state/.* does not match its checksum"),
        (lose, "state/.* is missing"),
        (garble_notes, r"notes/notes.json has \d+ bytes, not \d+"),
        (lose_sums, "checksums.json is missing"),
        (empty, "checksums.json is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_found(damage, message, copied):
    damage(copied / "3")
    found = checkpoint.find(copied)
    assert (found.step, found.notes, [*found.damaged]) == (2, {"at": 2}, [3])
    with pytest.raises(ValueError, match=f"3 is damaged: {message}; take another step"):
        checkpoint.restore(copied, 3, like=make_state())


def test_where_all_are_damaged_each_is_named(copied):
    for step in checkpoint.steps(copied):
        lose_sums(copied / str(step))
    with pytest.raises(ValueError, match=r"only damaged checkpoints \(3: .*; 2: .*; 1: .*\)"):
        checkpoint.find(copied)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert checkpoint.find(tmp_path / "nowhere") is None
    assert checkpoint.steps(tmp_path / "nowhere") == []


def test_what_a_killed_save_has_left_is_no_checkpoint_and_is_removed(copied):
    (copied / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (copied / "0.deleted").mkdir()
    assert checkpoint.find(copied).step == 3
    with checkpoint.writing(copied):
        pass
    assert {path.name for path in copied.iterdir()} == {"1", "2", "3"}


def test_a_state_of_four_devices_comes_back_on_others(tmp_path):
    def shards(num_devices):
        return sharding.shard_agents(make_state(5).params, sharding.agent_mesh(num_devices))

    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 5, shards(4))
    for num_devices in (1, 2, 8):
        like = shards(num_devices)
        restored = checkpoint.restore(tmp_path, 5, like=like)
        assert bits(restored) == bits(make_state(5).params)
        assert restored["kernel"].sharding == like["kernel"].sharding


def without_count(state):
    params = {name: x for name, x in state.params.items() if name != "count"}
    return state._replace(params=params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: jax.tree.map(lambda x: x[:4] if x.ndim else x, s),
            r"leaf 'params/bias' is bfloat16\[8, 3\] .* but bfloat16\[4, 3\] in the state",
        ),
        (lambda s: s._replace(step=0.5 * s.step), r"leaf 'step' is int32\[\] .* but float32\[\]"),
        (without_count, r"leaf 'params/count' is int32\[8\] .* but missing in the state"),
        (
            lambda s: s._replace(model_state={"mean": s.step}),
            "leaf 'model_state/mean' is missing in",
        ),
    ],
)
def test_a_leaf_that_does_not_fit_is_named(change, message, saved):
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(saved, 1, like=change(make_state()))


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="a checkpoint cannot be written into .*/file/run: "):
        save_steps(tmp_path / "file" / "run", 1)


def test_to_keep_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"keep is 0; it must lie in \[1, inf\)"):
        save_steps(tmp_path, 1, keep=0)


def test_a_fresh_flax_state_takes_what_a_jitted_step_has_saved(tmp_path):
    params = {"w": jnp.ones((NUM_AGENTS, 2))}
    fresh = FlaxState.create(apply_fn=None, params=params, tx=optax.adam(0.1))
    assert isinstance(fresh.step, int)
    trained = jax.jit(lambda state: state.apply_gradients(grads=params))(fresh)
    numbers = {"epoch": 3, "best": 0.5, "numpy": np.float64(0.1), "done": True}
    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, (trained, numbers))
        checkpoint.save(checkpoints, 2, (fresh, numbers))
    found, restored = checkpoint.restore(tmp_path, 1, like=(fresh, numbers))
    jax.tree.map(np.testing.assert_array_equal, found, trained)
    jax.tree.map(np.testing.assert_array_equal, restored, numbers)
    assert checkpoint.restore(tmp_path, 2, like=(trained, numbers))[0].step == 0


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ({1: np.nan, 2: 0.9, 3: 0.5}, [2, 3]),
        ({1: 0.9, 2: np.nan, 3: 0.5}, [1, 3]),
        ({1: np.inf, 2: 0.9, 3: -np.inf}, [2, 3]),
        ({1: jnp.float32(0.1), 2: jnp.bfloat16(0.9), 3: np.float32(0.5)}, [2, 3]),
        ({1: 1, 2: np.int64(3), 3: 2}, [2, 3]),
    ],
)
def test_scores_of_any_number_type_rank_and_those_that_are_not_finite_do_not(
    scores, kept, tmp_path
):
    save_steps(tmp_path, *scores, keep=1, scores=scores)
    assert checkpoint.steps(tmp_path) == kept


def test_a_nan_that_an_earlier_version_has_written_is_no_score(tmp_path):
    save_steps(tmp_path, 1, 2, scores={1: 0.1, 2: 0.9})
    notes = tmp_path / "1" / "notes" / "notes.json"
    notes.write_text(notes.read_text().replace("0.1", "NaN"))
    save_steps(tmp_path, 3, keep=1)
    assert checkpoint.steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("step", [7, np.int64(7), jnp.int32(7), np.array(7)])
def test_a_step_is_any_whole_number(step, tmp_path):
    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, step, {"w": jnp.ones(2)})
    assert checkpoint.steps(tmp_path) == [7]
    assert checkpoint.restore(tmp_path, step, like={"w": jnp.zeros(2)})["w"][0] == 1


STATE = {"w": np.ones(2)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"step": -1}, r"step is -1; it must lie in \[0, inf\)"),
        ({"step": True}, "step must be a whole number, not True"),
        ({"score": jnp.ones(3)}, "score is Array.*; give one number"),
        (
            {"notes": {"accuracy": np.float32(0.5)}},
            "notes are no JSON: .* float32 .*; give numbers",
        ),
        ({"notes": {(1, 2): 3}}, "notes are no JSON: keys must be str.*; give numbers"),
        ({"state": {"layer": {"name": "dense"}}}, "leaf 'layer/name' is of type str; give arrays"),
        ({"state": {"names": np.array(["a"])}}, "leaf 'names' holds <U1; give arrays"),
        ({"state": {"seen": 2**40}}, "leaf 'seen' is 1099511627776, which int32 cannot hold; keep"),
    ],
)
def test_what_cannot_be_saved_is_told_by_the_save_and_nothing_is_written(bad, message, tmp_path):
    given = {"step": 1, "state": STATE} | bad
    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 0, STATE)
        with pytest.raises(ValueError, match=message):
            checkpoint.save(checkpoints, given.pop("step"), given.pop("state"), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_notes_are_json_for_strict_parsers(tmp_path):
    notes = {"loss": np.nan, "norms": [np.inf, 1.5], "best": np.float64(0.5)}
    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, STATE, notes=notes)
    text = (tmp_path / "1" / "notes" / "notes.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
    expected = {"loss": None, "norms": [None, 1.5], "best": 0.5}
    assert checkpoint.find(tmp_path).notes == expected


EMPTY = {"x": jnp.zeros((4, 0)), "host": np.zeros((0, 3), np.int8), "keys": jax.random.split(
    jax.random.key(0), 0)}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"w": jnp.arange(3.0)}])
def test_arrays_of_size_0_come_back(more, tmp_path):
    state = EMPTY | more
    with checkpoint.writing(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, state)
    restored = checkpoint.restore(tmp_path, 1, like=state)
    assert bits(restored) == bits(state)
    assert isinstance(restored["host"], np.ndarray)
    with pytest.raises(ValueError, match=r"leaf 'x' is float32\[4, 0\] .* float32\[4, 1\]"):
        checkpoint.restore(tmp_path, 1, like=state | {"x": jnp.zeros((4, 1))})


def test_a_part_of_a_state_is_restored_alone(saved):
    whole, like = make_state(2), jax.eval_shape(make_state)
    for names in (["params"], ["key", "opt_state"]):
        part = {name: getattr(like, name) for name in names}
        expected = {name: getattr(whole, name) for name in names}
        assert bits(checkpoint.restore(saved, 2, like=part, partial=True)) == bits(expected)
    part = {"params": {"kernel": like.params["kernel"]}}
    with pytest.raises(
        ValueError, match="leaf 'step' is .* or read a part of it with partial=True"
    ):
        checkpoint.restore(saved, 2, like=part)
    with pytest.raises(ValueError, match=r"leaf 'params/w' is missing in .* but float32\[2\]"):
        checkpoint.restore(saved, 2, like={"params": {"w": jnp.ones(2)}}, partial=True)


def test_a_step_that_is_not_there_is_told_with_those_that_are(saved, tmp_path):
    with pytest.raises(ValueError, match=r"has no checkpoint 4; it has 1, 2, 3"):
        checkpoint.restore(saved, 4, like=make_state())
    with pytest.raises(ValueError, match="has no checkpoint 0; it has none at all"):
        checkpoint.restore(tmp_path, 0, like=make_state())


def test_folders_whose_names_only_resemble_steps_are_not_counted(tmp_path):
    for name in ("007", "٣", "1.5", "-1", "8"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [8]
