"""What runs in the reader's browser: the page's style, and the script that draws the chosen machine and the ledger.

Names are set with textContent and as an option's text; the charts themselves get fixed words only, since
the plotting library reads markup in its labels.
"""

from mtad_jax.report.ledger_drawing import DRAW_LEDGER

STYLE = """
:root { color-scheme: light dark; --page: #fdfdfb; --ink: #1c1c1e; --soft: #5a5a60; --line: #d9d9d4;
  --panel: #f3f3ef; --accent: #0b5cad; --score: #0b5cad; --pot: #b3261e; --initial: #8a5a00; --best: #1b7a3d;
  --label: rgba(214, 120, 0, .20); --strip: #c46a00; --other: #7a4fb5; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16171a; --ink: #ececf0; --soft: #a8a8b0; --line: #3a3b40;
  --panel: #202126; --accent: #8ab8ff; --score: #8ab8ff; --pot: #ff8f85; --initial: #e6b450;
  --best: #7fd99a; --label: rgba(255, 170, 60, .22); --strip: #ffb04d; --other: #c7a6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
a { color: var(--accent); } p { max-width: 46rem; } .soft { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none; }
.bar { position: sticky; top: 0; z-index: 5; background: var(--page); border-bottom: 1px solid var(--line);
  padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
select, button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .5rem; min-height: 2.5rem; max-width: 100%; }
label { display: inline-flex; gap: .4rem; align-items: center; min-height: 2.5rem; max-width: 100%;
  overflow-wrap: normal; }
label select { min-width: 0; flex: 0 1 auto; text-overflow: ellipsis; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.chart { width: 100%; height: 26rem; } .chart.low { height: 20rem; }
.absent { border-left: 4px solid var(--strip); background: var(--panel); padding: .5rem .75rem; }
.scroll { overflow-x: auto; max-height: 36rem; overflow-y: auto; border: 1px solid var(--line);
  border-radius: .4rem; margin: .5rem 0; overflow-wrap: normal; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding: .5rem; color: var(--soft); }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { position: sticky; top: 0; background: var(--panel); } tbody th { font-weight: 600; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th.n { white-space: normal; min-width: 4.5rem; } tbody th { min-width: 8rem; }
td:not(.n) { min-width: 7rem; }
[hidden] { display: none !important; }
@media (max-width: 40rem) { body { padding: .6rem; } .chart { height: 24rem; } }
@media print { .bar, nav { display: none; } .scroll { max-height: none; } }
"""

SCRIPT = (
  """
(() => {
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const select = document.getElementById('machine');
  const logScale = document.getElementById('log-scale');
  const onlyThis = document.getElementById('only-this');
  const scorePlot = document.getElementById('score-chart');
  const lossPlot = document.getElementById('loss-chart');
  const narrow = () => window.innerWidth < 640;
  const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  const time = (entry, value) => entry.date ? new Date(value).toISOString().replace('Z', '') : value;

  function layout(extra) {
    const axis = {gridcolor: color('line'), linecolor: color('line'), zeroline: false, automargin: true};
    return Object.assign({
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: {color: color('ink'), size: 13},
      margin: {l: narrow() ? 42 : 60, r: 12, t: 30, b: 40}, hovermode: 'closest',
      legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom'}, dragmode: narrow() ? false : 'zoom',
      modebar: {bgcolor: 'rgba(0,0,0,0)', color: color('soft'), activecolor: color('accent'),
        orientation: 'v'},
      xaxis: Object.assign({}, axis), yaxis: Object.assign({}, axis),
    }, extra(axis));
  }
  // the buttons are named one by one: the library's own set has one that shares the chart with a web service
  const options = {responsive: true, displaylogo: false, scrollZoom: false, displayModeBar: !narrow(),
    modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'zoomIn2d', 'zoomOut2d', 'resetScale2d']]};

  function strip(entry, spans, name, height, shade) {
    const x = [], y = [];
    for (const [from, to] of spans) {
      x.push(time(entry, from), time(entry, to), null);
      y.push(height, height, null);
    }
    return {x, y, name, yaxis: 'y2', mode: 'lines', line: {width: 10, color: shade}, showlegend: false,
      hovertemplate: name + ' %{x}<extra></extra>'};
  }

  function drawScores(entry) {
    if (!scorePlot) return;
    const traces = [{x: entry.x, y: entry.y, name: 'score', mode: 'lines', connectgaps: false,
      line: {color: color('score'), width: 1}, hovertemplate: '%{y:.4g} at %{x}<extra></extra>'}];
    const ends = [entry.first, entry.last].map(value => time(entry, value));
    const lines = [['initial', 'initial threshold', 'dot'], ['pot', 'POT threshold', 'solid'],
      ['best', 'best F1 (oracle: uses labels)', 'dash']];
    for (const [key, name, dash] of lines) {
      const level = entry.thresholds[key];
      if (level === null) continue;
      traces.push({x: ends, y: [level, level], name: name + ' ' + level.toPrecision(4), mode: 'lines',
        line: {color: color(key), dash, width: 1.5}, hoverinfo: 'skip'});
    }
    if (entry.moving) traces.push({x: entry.x, y: entry.line, name: 'threshold', mode: 'lines',
      line: {color: color('pot'), width: 1.5}, hoverinfo: 'skip'});
    traces.push(strip(entry, entry.labels, 'labelled', 1, color('strip')));
    traces.push(strip(entry, entry.alarms, 'alarm', 0, color('pot')));
    const shapes = entry.labels.map(([from, to]) => ({type: 'rect', xref: 'x', yref: 'y domain',
      x0: time(entry, from), x1: time(entry, to), y0: 0, y1: 1, fillcolor: color('label'), line: {width: 0},
      layer: 'below'}));
    const type = logScale.checked ? 'log' : 'linear';
    Plotly.react(scorePlot, traces, layout(axis => ({
      shapes,
      xaxis: Object.assign({}, axis, {type: entry.date ? 'date' : 'linear', anchor: 'y2',
        title: {text: narrow() ? '' : entry.date ? 'time (as in the data)' : 'row'}}),
      yaxis: Object.assign({}, axis, {type, domain: [0.2, 1], title: {text: narrow() ? '' : 'score'}}),
      yaxis2: Object.assign({}, axis, {domain: [0, 0.15], range: [-0.7, 1.7], fixedrange: true,
        showgrid: false, tickvals: [0, 1], ticktext: narrow() ? ['A', 'L'] : ['alarms', 'labels']}),
    })), options);
  }

  function drawLosses(entry) {
    if (!lossPlot) return;
    const names = {loss: ['training loss', 'score'], forecast_loss: ['forecast part', 'initial'],
      reconstruction_loss: ['reconstruction part', 'best'], kl: ['KL part', 'other'],
      validation_loss: ['validation loss', 'pot']};
    const traces = [];
    for (const [key, [name, shade]] of Object.entries(names)) {
      const curve = entry.losses[key];
      if (curve) traces.push({x: curve.x, y: curve.y, name,
        mode: key === 'validation_loss' ? 'lines+markers' : 'lines',
        line: {color: color(shade), width: key === 'loss' ? 2 : 1.3}, marker: {size: 5},
        hovertemplate: name + ' %{y:.4g} at step %{x}<extra></extra>'});
    }
    const trouble = entry.trouble, shapes = [];
    document.getElementById('no-losses').hidden = traces.length > 0;
    document.getElementById('set-back').hidden = !trouble || traces.length === 0;
    lossPlot.hidden = traces.length === 0;
    lossPlot.classList.toggle('low', !trouble);
    if (!traces.length) return;
    if (trouble) {
      traces.push({x: trouble.rate.x, y: trouble.rate.y, name: 'learning rate', yaxis: 'y2', mode: 'lines',
        line: {color: color('soft'), width: 1.3}, hovertemplate: 'learning rate %{y:.3g} at %{x}<extra></extra>'});
      for (const [key, name, symbol, shade] of [['rolled_back', 'rolled back', 'triangle-down', 'strip'],
        ['retired', 'retired', 'x', 'pot']]) {
        const marks = trouble[key];
        if (marks.x.length) traces.push({x: marks.x, y: marks.y, name, yaxis: 'y2', mode: 'markers',
          marker: {symbol, size: 10, color: color(shade)},
          hovertemplate: name + ' at step %{x}, learning rate %{y:.3g}<extra></extra>'});
        for (const x of marks.x) shapes.push({type: 'line', xref: 'x', yref: 'paper', x0: x, x1: x, y0: 0, y1: 1,
          line: {color: color(shade), width: 1, dash: key === 'retired' ? 'solid' : 'dot'}, layer: 'below'});
      }
    }
    Plotly.react(lossPlot, traces, layout(axis => Object.assign({
      shapes,
      xaxis: Object.assign({}, axis, {title: {text: narrow() ? '' : 'step'}}, trouble ? {anchor: 'y2'} : {}),
      yaxis: Object.assign({}, axis, {title: {text: narrow() ? '' : 'loss'}}, trouble ? {domain: [0.32, 1]} : {}),
    }, trouble ? {yaxis2: Object.assign({}, axis, {domain: [0, 0.24], rangemode: 'tozero', nticks: 3,
      title: {text: narrow() ? '' : 'rate'}})} : {})), options);
  }

"""
  + DRAW_LEDGER
  + """
  function draw() {
    const entry = data[Number(select.value)];
    for (const place of document.querySelectorAll('.chosen')) place.textContent = entry.name;
    document.getElementById('summary').textContent = entry.summary;
    drawScores(entry);
    drawLosses(entry);
    for (const row of document.querySelectorAll('tr[data-machine]'))
      row.hidden = onlyThis.checked && row.dataset.machine !== entry.name;
  }

  select.addEventListener('change', draw);
  logScale.addEventListener('change', draw);
  onlyThis.addEventListener('change', draw);
  for (const look of ['(prefers-color-scheme: dark)', '(max-width: 639px)'])
    matchMedia(look).addEventListener('change', () => { draw(); drawLedger(); });
  draw();
  drawLedger();
})();
"""
)
