"""The file of what experts know: what it means for a machine, and every way to write it wrong."""

import re

import numpy as np
import pytest

from mtad_jax.config import DetectConfig
from mtad_jax.config_choices import ScoringRule
from mtad_jax.data.scaling import fit_scaler
from mtad_jax.detect.combine import metric_scores
from mtad_jax.detect.errors import Errors, fit_error_model
from mtad_jax.roles.prior import DOWN, UP, check_known, know_nothing, parse_prior, resolve_prior

METRICS = ("cpu", "disk_used", "disk_free", "uptime")
TEXT = """
[[metric]]
name = "disk_*"
varies = 0.05
of = "level"

[[metric]]
name = "disk_free"
role = "database"
only = "down"

[[metric]]
name = "uptime"
ignore = true

[[metric]]
name = "cpu"
varies = 0.2
"""


def a_scaler():
  rows = np.array([[0.0, 100.0, 50.0, 7.0], [50.0, 100.5, 60.0, 7.0]])
  return fit_scaler(rows, 1e-3), (rows.mean(axis=0) - rows.min(axis=0)) / np.array([50.0, 0.5, 10.0, 7.0])


def test_entries_become_floors_in_the_machines_own_scaled_units():
  scaler, levels = a_scaler()
  found = resolve_prior(parse_prior(TEXT, "p"), "database", METRICS, scaler, levels)
  np.testing.assert_allclose(found.floor, [0.2, 0.05 * 100.25 / 0.5, 0.05 * 55 / 10, 0.0])
  assert found.is_ignored.tolist() == [False, False, False, True]
  assert found.direction.tolist() == [0, 0, DOWN, 0]
  assert resolve_prior(parse_prior(TEXT, "p"), "web", METRICS, scaler, levels).direction.tolist() == [0, 0, 0, 0]


def test_a_later_entry_goes_before_an_earlier_one():
  scaler, levels = a_scaler()
  text = TEXT + '[[metric]]\nname = "uptime"\nignore = false\nonly = "up"\n'
  found = resolve_prior(parse_prior(text, "p"), "web", METRICS, scaler, levels)
  assert not found.is_ignored.any()
  assert found.direction[3] == UP


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("x = 1", "prior.toml: unknown table 'x'; known: [[metric]]"),
    ("[[metric]]\nname = 'a'\nvary = 1", "prior.toml: [[metric]] 1: unknown field 'vary'; known: name, role"),
    ("[[metric]]\nignore = true", "prior.toml: [[metric]] 1: name = None: a name or a pattern is wanted"),
    ("[[metric]]\nname = 'a'", "prior.toml: [[metric]] 1: one of varies, ignore and only is wanted"),
    ("[[metric]]\nname = 'a'\nvaries = 0", "[[metric]] 1: varies = 0: a share above 0 is wanted, .05 for 5%"),
    ("[[metric]]\nname = 'a'\nvaries = true", "[[metric]] 1: varies = True: a share above 0"),
    ("[[metric]]\nname = 'a'\nvaries = nan", "[[metric]] 1: varies = nan: a share above 0"),
    ("[[metric]]\nname = 'a'\nonly = 'left'", "[[metric]] 1: only = 'left': \"up\" or \"down\" is wanted"),
    ("[[metric]]\nname = 'a'\nof = 'range'\nonly = 'up'", "of = 'range': it says nothing without varies"),
    ("[[metric]]\nname = 'a'\nvaries = 1\nof = 'x'", "of = 'x': \"range\" or \"level\" is wanted"),
    ("[[metric]]\nname = 'a'\nignore = 1", "ignore = 1: true or false is wanted"),
    ("[metric]\nname = 'a'", "prior.toml: metric: a list of tables is wanted, [[metric]]"),
    ("metric = [1]", "prior.toml: [[metric]] 1: 1 is no table of fields"),
    ("[[metric", "prior.toml: "),
  ],
)
def test_what_is_wrong_is_named(text, told):
  with pytest.raises(ValueError, match=re.escape(told)):
    parse_prior(text, "prior.toml")


def test_a_slip_of_the_pen_is_found():
  entries = parse_prior("[[metric]]\nname = 'cpu'\nignore = true\n[[metric]]\nname = 'dsk'\nignore = true", "p")
  with pytest.raises(ValueError, match=re.escape("p: [[metric]] 2: name = 'dsk' is nobody's; known: cpu, disk_free")):
    check_known(entries, ["web"], METRICS, "p")
  check_known(entries[:1], ["web"], METRICS, "p")


RULES = [ScoringRule.JOINT, ScoringRule.STANDARDISED, ScoringRule.SURPRISE]


@pytest.mark.parametrize("rule", RULES)
def test_the_networks_rules_obey_it_too(rule):
  rng = np.random.default_rng(0)
  parts = rng.normal(0, 0.01, (2, 400, 3))
  errors = Errors(parts[0], parts[1], np.full((400, 3), -8.0), parts[0] - parts[1])
  model = fit_error_model(errors)
  row = np.array([[0.5, -0.5, 0.5]])
  moved = Errors(row, row, np.full((1, 3), 0.0), row)  # the decoder's own deviation is 1 here
  none_filled = np.zeros((1, 3), bool)

  def scored(prior):
    return metric_scores(moved, model, none_filled, rule, DetectConfig(), 1e-4, prior)[0]

  plain = scored(None)
  assert plain.min() > 1
  np.testing.assert_array_equal(scored(know_nothing(3)), plain)
  prior = know_nothing(3)._replace(
    floor=np.array([1.0, 0, 0]), direction=np.array([0, UP, UP]), is_ignored=np.array([False, False, True])
  )
  found = scored(prior)
  assert found[0] < plain[0] / 10
  assert found[1] < plain[1] / 10  # at most the surprise of an error of 0, where the usual one is not 0
  assert found[2] == 0
