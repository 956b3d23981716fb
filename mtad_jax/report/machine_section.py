"""The places that the script fills: the fleet's worst events, and the chosen machine with its charts and events."""

from mtad_jax.report import event_cards, figures, tables
from mtad_jax.report.inputs import Work

_MACHINE = """<h3 class="chosen" id="chosen-machine" tabindex="-1"></h3><p id="summary" aria-live="polite"></p>
<p class="tools"><button type="button" id="whole">Whole series</button>
<button type="button" id="to-event">Chosen event</button> <a href="#fleet">Back to the fleet</a></p>
<div id="score-chart" class="chart" role="group"
 aria-label="Score against time with thresholds, and below it the metrics' own scores"></div>
{absent}<p id="metrics-said" class="soft" aria-live="polite"></p>
<div id="metrics-legend" class="scale" hidden><span>0</span><span class="ramp"></span><span id="metrics-top"></span>
<span>a metric's own score; an event's causes are shares of what stands above its usual level</span></div>
<details id="metrics-table" hidden><summary>The metrics as a table</summary></details>
<details class="soft"><summary>How to read this</summary><p>Shaded: labelled segments; the strip below repeats them
beside the alarms. The best-F1 threshold was chosen with the labels and serves comparison alone. Long series are drawn
at about {num_points:,} points: lowest and highest of each stretch, and the peak of every run above the threshold;
rows around the events listed here are drawn whole. The heat map has the highest score of every stretch, so that no
spike is lost; around the chosen event, once it fills the chart, it has row by row.</p></details>
<h3 id="events-heading">Its events</h3><p id="events-said" class="soft"></p>
<ol id="event-list" class="pick" aria-labelledby="events-heading"></ol>
<p id="event-now" class="visually-hidden" role="status"></p>
<div class="event"><div id="event-card"></div><div><div id="event-chart" class="chart" role="group"
 aria-label="Values of the event's first causes against what was expected"></div>
<p id="event-said" class="soft"></p></div></div>"""


def worst(work: Work, num_cards: int) -> str:
  """Returns the place of the fleet's worst cards, and how many events there are besides."""
  told = f"{num_cards:,} of {len(work.events):,} events, the worst first"
  if num_cards < len(work.events):
    told += (
      f", at most {event_cards.WORST_OF_A_MACHINE:,} of a machine. Each machine has its own further down, and all"
      " events are in the table below"
    )
  return f'<p class="soft">{told}.</p><div id="worst-cards" class="cards"></div>'


def section(work: Work) -> str:
  """Returns the place of the chosen machine, and what stands there without the metrics' scores."""
  reason = work.missing.get("metric_scores")
  absent = f"Metrics by time, and values against what was expected. {reason}" if reason else ""
  return _MACHINE.format(
    absent=tables.absent(absent) if absent else "", num_points=figures.points_per_machine(len(work.machines))
  )
