"""Options of DeepConf, from the command line to its rule."""

import pytest

from jaxmoe.cli.deep_conf_options import deep_conf_of
from jaxmoe.cli.evaluate import parser
from jaxmoe.evals.deep_conf import DeepConf


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("", None),
        ("--deep-conf offline", DeepConf(warm_up=32)),
        ("--deep-conf offline --deep-conf-group 8", DeepConf(warm_up=32, group=8)),
        ("--deep-conf online", DeepConf()),
        (
            "--deep-conf online --deep-conf-warm-up 4 --deep-conf-keep 0.9",
            DeepConf(warm_up=4, keep=0.9),
        ),
    ],
)
def test_options_say_the_rule(given, rule):
    """Answers would end that were to be whole, or at another threshold."""
    assert deep_conf_of(parser().parse_args(given.split())) == rule


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--deep-conf-group 8", "--deep-conf-group needs"),
        ("--deep-conf offline --deep-conf-keep 0.5", "--deep-conf-keep needs.*offline"),
        ("--deep-conf online --n 16", "16 answers of the warm-up, found 16"),
        ("--deep-conf online --deep-conf-top 0", "top.*found 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(given, said):
    """A number would be passed over."""
    with pytest.raises(ValueError, match=said):
        deep_conf_of(parser().parse_args(given.split()))
