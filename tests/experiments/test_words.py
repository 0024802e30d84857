"""A word that no option takes is one line that says why, whatever the program."""

import pytest

from experiments.advise.config import Advise
from experiments.compare.config import Compare
from experiments.heterogeneity.config import Heterogeneity
from experiments.launch.words import check_words
from experiments.network.config import Networks
from experiments.run.config import Run, option_hints
from experiments.run.errors import UsageError, flag


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--agnets 3", "--agnets: there is no such option; did you mean --agents?"),
        ("--zzz", "--zzz: there is no such option; --help-all lists all"),
        ("--agents", "--agents: it lacks its value; give one"),
        ("--data-dir --epochs 3", "--data-dir: it lacks its value; give one"),
        ("--agents x", "--agents: 'x' is no whole number"),
        ("--agents=", "--agents: '' is no whole number"),
        ("--batch_size 1e1", "--batch-size: '1e1' is no whole number"),
        ("--learning-rate fast", "--learning-rate: 'fast' is no number"),
        ("--malicious two", "--malicious: 'two' is no whole number"),
        ("5 --agents 3", "'5' follows no option; options begin with --"),
        ("--agents 3 4", "'4' belongs to no option: --agents takes one value"),
        ("--quiet 3", "'3' belongs to no option: --quiet takes none"),
        ("--quiet=True", "--quiet: it takes no value; leave 'True' out"),
        (
            "--model mpl",
            "--model: unknown choice 'mpl' (did you mean 'mlp'?); expected cnn, resnet20, mlp, "
            "softmax",
        ),
        ("--log wand", "--log: unknown choice 'wand' (did you mean 'wandb'?); expected "),
    ],
)
def test_a_word_that_no_option_takes_is_told_in_one_line(words, line):
    with pytest.raises(UsageError) as error:
        check_words(Run(), words.split())
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--agents 3 --no-quiet --learning-rate=1e-3 --nesterov",
        "--malicious 1 --log tensorboard wandb --without-agents ada 3",
        "--momentum None --batch-size None --dataset None",
        "--learning-rate -1 --topology -graph.edges",
    ],
)
def test_what_the_parser_takes_passes(words):
    check_words(Run(), words.split())


def test_each_of_several_values_is_looked_at():
    check_words(Networks(), ["--learning-rates", "0.1", "1e-2", "--seeds", "2"])
    with pytest.raises(UsageError, match="^--learning-rates: 'fast' is no number$"):
        check_words(Networks(), ["--learning-rates", "0.1", "fast"])


@pytest.mark.parametrize("study", [Advise, Compare, Heterogeneity, Networks])
def test_every_option_of_a_study_is_known(study):
    for name in option_hints(study()):
        try:
            check_words(study(), [flag(name)])
        except UsageError as error:
            assert str(error) == f"{flag(name)}: it lacks its value; give one"
