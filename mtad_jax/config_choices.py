"""What settings choose from by name: one enum a choice, its members written as in a config file."""

import enum


class RunMode(enum.StrEnum):
  """What the network learns and is scored by (the original program's names)."""

  FORECASTING = "FORECASTING"
  RECONSTRUCTING = "RECONSTRUCTING"
  BOTH = "BOTH"


class Attention(enum.StrEnum):
  """`static` is the paper's; `gatv2` is Brody et al. 2022; `none` leaves both attentions out, for comparison."""

  NONE = "none"
  STATIC = "static"
  GATV2 = "gatv2"


class Detector(enum.StrEnum):
  """What is trained: a network or a linear forecast per machine, or one Gaussian mixture per role of machines."""

  MTAD_GAT = "mtad_gat"
  LINEAR = "linear"  # the network's linear skip alone: nothing is learnt by steps
  ROLE_MIXTURE = "role_mixture"


class Covariance(enum.StrEnum):
  """What a mixture component's covariance may be: any, of independent metrics, or one that all components share."""

  FULL = "full"
  DIAGONAL = "diagonal"
  TIED = "tied"


class MatmulPrecision(enum.StrEnum):
  """How exactly products of matrices are formed; parameters, states and losses are float32 in all of them.

  platform: as JAX does unasked: TF32 on an NVIDIA GPU, bfloat16 on TPU, float32 on the CPU. The others ask for at
  least that many bits where the device can do with fewer; the CPU forms float32 products whatever is asked.
  """

  PLATFORM = "platform"
  FLOAT32 = "float32"
  TENSORFLOAT32 = "tensorfloat32"
  BFLOAT16 = "bfloat16"


class ScoringRule(enum.StrEnum):
  """How the errors of one row become one score; `detect/combine.py` has the formulas."""

  JOINT = "joint"
  DENSITY = "density"
  STANDARDISED = "standardised"
  SURPRISE = "surprise"
  GAMMA = "gamma"
  RAW = "raw"
