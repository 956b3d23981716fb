"""What both detectors share: fitted once, then rows in and scores, labels and causes out; kept as a work directory.

One series or a fleet: a fleet, {machine: series}, gives dicts of the same names back.
"""

import abc
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow.parquet as pq

from mtad_jax.config import Config
from mtad_jax.detect.score_run import Judged
from mtad_jax.detect.trained_order import are_names
from mtad_jax.library.folder import copy_whole, make_temporary, pack, unpack
from mtad_jax.library.frames import SINGLE, is_fleet, read_machines, to_test
from mtad_jax.library.rows import Explanation, RowScores, complete, explain_rows, probabilities, row_scores
from mtad_jax.library.run import TRAINING_SCORES, Fitted, Judges, fit_run, open_fitted, quietly
from mtad_jax.library.settings import build_config, to_settings, with_short_window
from mtad_jax.roles.prior import read_text

_LEARNT = ("decision_scores_", "threshold_", "labels_", "n_features_in_", "feature_names_in_", "valid_")


class BaseDetector(abc.ABC):
  """A detector in scikit-learn's manner; `MTADGAT`, `LinearForecast` and `RoleMixture` are its kinds.

  After `fit`, of one series (of a fleet, dicts by machine):
    decision_scores_, labels_, valid_: [T] of the training rows, as `decision_function`, `predict` and `score_rows` of
      them. threshold_: a label is 1 above it; with spot and dspot, where it begins. n_features_in_: F.
    feature_names_in_: [F] names, where the columns had any.
    workdir_: the folder of the run, one as train.py makes; it goes with the detector unless `workdir` was given.
  """

  SETTINGS: ClassVar[Mapping[str, str]] = {  # argument -> config field
    "threshold": "detect.threshold",
    "pot_q": "detect.pot_q",
    "random_seed": "train.random_seed",
  }

  def __init__(
    self,
    threshold: str | None = None,
    pot_q: float | None = None,
    random_seed: int = 0,
    roles: Mapping[str, str] | None = None,
    prior: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
  ):
    self.threshold = threshold
    self.pot_q = pot_q
    self.random_seed = random_seed
    self.roles = roles
    self.prior = prior
    self.settings = settings
    self.workdir = workdir
    self.verbose = verbose

  # settings

  @classmethod
  @abc.abstractmethod
  def _preset(cls, size: str) -> dict[str, Any]:
    """Returns the settings tree that the arguments are put over."""

  @classmethod
  def _defaults(cls) -> dict[str, Any]:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """Returns the arguments as they were given; deep: means nothing here."""
    return {name: getattr(self, name) for name in self._defaults()}

  def set_params(self, **params: Any) -> Self:
    """Returns the detector with other arguments, for the next `fit`; raises ValueError on an unknown one."""
    known = self._defaults()
    for name, value in params.items():
      if name not in known:
        raise ValueError(f"{type(self).__name__}: unknown argument {name!r}; known: {', '.join(known)}")
      setattr(self, name, value)
    return self

  def make_config(self) -> Config:
    """Returns the settings that the arguments ask for; raises ValueError naming what is wrong in them."""
    preset = self._preset(getattr(self, "size", ""))
    detector = preset["model"]["detector"]
    preset["train"]["progress_bar"] = bool(self.verbose)
    config = build_config(preset, self._arguments(), self.settings)
    if config.model.detector.value != detector:
      raise ValueError(f"config.model.detector: {config.model.detector.value!r} is not {type(self).__name__}'s")
    return config

  def _arguments(self) -> dict[str, Any]:
    return {path: getattr(self, name) for name, path in self.SETTINGS.items()}

  def _prior_text(self) -> str | None:
    """Returns the text of `prior`, which is a file unless it has the look of its content."""
    if self.prior is None:
      return None
    is_text = isinstance(self.prior, str) and (not self.prior.strip() or "[[" in self.prior or "\n" in self.prior)
    return str(self.prior) if is_text else read_text(self.prior)

  # fitting

  def fit(self, X: Any, y: Any = None) -> Self:
    """Returns the detector fitted on rows that are mostly normal.

    Args:
      X: [T, F] or [T] numbers; a pandas, polars or Arrow frame; or a fleet, {machine: any of these}. NaN is missing.
      y: not looked at.

    Raises:
      ValueError: settings or rows that cannot serve, or a `workdir` of another run, in one line.
    """
    config = self.make_config()
    prior = self._prior_text()
    machines = read_machines(X, self.roles)
    config = with_short_window(config, machines)
    folder, cleanup = (Path(self.workdir), None) if self.workdir else make_temporary(self)
    try:
      with quietly(self.verbose):
        fitted = fit_run(folder, config, machines, prior)
    except BaseException:
      if cleanup is not None:
        cleanup()
      raise
    self._adopt(fitted, cleanup)
    return self

  def _adopt(self, fitted: Fitted, cleanup: Callable[[], Any] | None) -> None:
    """Takes a work directory as the detector's own, in place of the one before; cleanup: what removes it."""
    before = vars(self).get("_cleanup")
    self._fitted, self._judges, self._cleanup = fitted, Judges(fitted), cleanup
    self.workdir_ = str(fitted.workdir)
    for name in _LEARNT:
      vars(self).pop(name, None)
    stored = {m.name: m for group in fitted.run.groups for m in group.machines}
    self.threshold_ = self._shaped({name: fitted.calibrations[name].threshold for name in stored})
    self.n_features_in_ = self._shaped({name: len(m.preparation.metrics) for name, m in stored.items()})
    names = {name: np.array(m.preparation.metrics, object) for name, m in stored.items()}
    if all(are_names(tuple(own)) for own in names.values()):
      self.feature_names_in_ = self._shaped(names)
    table = fitted.workdir / TRAINING_SCORES / "scores.parquet"
    if table.exists():
      rows = _read_scores(str(table), list(stored))
      self.decision_scores_ = self._shaped({name: own.score for name, own in rows.items()})
      self.labels_ = self._shaped({name: own.is_anomaly.astype(int) for name, own in rows.items()})
      self.valid_ = self._shaped({name: own.valid for name, own in rows.items()})
    if before is not None:
      before()

  def _shaped(self, by_name: dict[str, Any]) -> Any:
    """Returns figures by machine, or the one figure where no fleet was fitted."""
    return by_name[SINGLE] if list(by_name) == [SINGLE] else by_name

  def __getattr__(self, name: str) -> Any:
    if name in _LEARNT or name == "workdir_":
      if "_fitted" not in vars(self):
        raise AttributeError(f"{type(self).__name__} has no {name}: it is not fitted yet; call fit(X) first")
      raise AttributeError(
        f"{type(self).__name__} has no {name}: {self.workdir_} does not have it; score.py --split=train writes scores"
      )
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

  def __sklearn_is_fitted__(self) -> bool:
    return "_fitted" in vars(self)

  # scoring

  def _score(self, X: Any, make: Callable[[Judged, tuple[str, ...], Config], Any]) -> Any:
    """Returns what `make` makes of every machine, in the shape of X."""
    if "_fitted" not in vars(self):
      raise ValueError(f"{type(self).__name__} is not fitted yet; call fit(X) or load(path) first")
    machines = [to_test(machine) for machine in read_machines(X, self.roles)]
    if not is_fleet(X):
      trained = [stored.name for group in self._fitted.run.groups for stored in group.machines]
      if len(trained) > 1:
        raise ValueError(f"X: {len(trained)} machines were fitted, {', '.join(trained[:8])}; give {{machine: rows}}")
      machines = [machines[0]._replace(name=trained[0])]
    found = {}
    for judge, judged in self._judges.score(machines):
      metrics = tuple(judge.metrics[i] for i in judge.targets)
      found[judged.machine.name] = make(judged, metrics, judge.config)
    return {name: found[name] for name in X} if is_fleet(X) else found[machines[0].name]

  def score_rows(self, X: Any) -> Any:
    """Returns `RowScores`: score, threshold, ratio, alarm and whether the row had a window, [T] each.

    A row has its own score where the window before it is there and at most half missing. Where it is not, `valid` is
    false, there is no alarm, and the score is that of the last row before that has one; before the first such row,
    the first's.

    Raises:
      ValueError: a machine that was not fitted, columns or a step that are not as in training, an infinity, or no row
        with a window; in one line.
    """
    return self._score(X, lambda judged, _, config: row_scores(judged, config.model.window_size))

  def decision_function(self, X: Any) -> Any:
    """Returns the scores [T], the larger the stranger, one a row and finite; raises as `score_rows`."""
    return _each(self.score_rows(X), lambda rows: rows.score)

  def predict(self, X: Any) -> Any:
    """Returns [T] int: 1 where the row is above its threshold, 0 elsewhere; raises as `score_rows`."""
    return _each(self.score_rows(X), lambda rows: rows.is_anomaly.astype(int))

  def predict_proba(self, X: Any) -> Any:
    """Returns [T, 2]: r / (1 + r) in the second column, r = score / threshold; `rows.probabilities` says more."""
    return _each(self.score_rows(X), probabilities)

  def fit_predict(self, X: Any, y: Any = None) -> Any:
    """Returns `labels_` after fitting on X."""
    return self.fit(X, y).labels_

  def explain(self, X: Any) -> list[Explanation] | dict[str, list[Explanation]]:
    """Returns the events in X with their causes, in order; raises as `score_rows`."""
    return self._score(X, lambda judged, metrics, config: explain_rows(judged, metrics, config))

  # keeping

  def save(self, path: str | os.PathLike) -> None:
    """Copies the work directory to `path`, whole or not at all, where `load` and the commands find it.

    Raises:
      ValueError: not fitted, or there is something at `path` already. OSError: it cannot be written.
    """
    copy_whole(self.workdir_, path)

  @classmethod
  def from_workdir(cls, path: str | os.PathLike) -> Self:
    """Returns a detector on a work directory where it lies, as it was left by `save` or train.py; see `load`."""
    fitted = open_fitted(path)
    preset = cls._preset("cpu")
    preset["train"]["progress_bar"] = fitted.run.config.train.progress_bar  # `verbose` says it here
    detector = cls(settings=to_settings(fitted.run.config, preset) or None)
    detector._adopt(fitted, None)
    return detector

  def __getstate__(self) -> dict[str, Any]:
    state = {name: value for name, value in vars(self).items() if name not in ("_fitted", "_judges", "_cleanup")}
    if "_fitted" in vars(self):
      state["_files"] = pack(self.workdir_)
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    files = state.pop("_files", None)
    vars(self).update(state)
    if files is None:
      return
    folder, cleanup = make_temporary(self)
    unpack(files, folder)
    self._fitted = open_fitted(folder)
    self._judges, self._cleanup, self.workdir_ = Judges(self._fitted), cleanup, str(folder)

  def __repr__(self) -> str:
    defaults = self._defaults()
    given = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
    return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _each(found: Any, take: Callable[[RowScores], np.ndarray]) -> Any:
  """Returns what is taken of one machine's rows, or of each of a fleet's."""
  return {name: take(rows) for name, rows in found.items()} if isinstance(found, dict) else take(found)


def _read_scores(file: str, names: list[str]) -> dict[str, RowScores]:
  """Returns the rows of a table of scores by machine; those without a score completed."""
  table = pq.read_table(file, columns=["machine", "score", "threshold", "is_anomaly", "valid"])
  machine = table["machine"].to_numpy()
  columns = {name: table[name].to_numpy() for name in table.column_names[1:]}
  found = {}
  for name in names:
    own = {field: values[machine == name] for field, values in columns.items()}
    found[name] = complete(**own, told=f"{file}: machine {name} has no scored row")
  return found
