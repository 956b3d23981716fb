// One machine: its score with thresholds, labels and alarms, and below on the same axis its metrics by time.

const scorePlot = by('score-chart');
const LINES = [['initial', 'initial threshold', 'dot'], ['warning', 'warning threshold', 'dashdot'],
  ['pot', 'POT threshold', 'solid'], ['best', 'best F1 (oracle: uses labels)', 'dash']];

function strip(entry, spans, name, height, shade) {
  const x = [], y = [];
  for (const [from, to] of spans) {
    x.push(time(entry, from), time(entry, to), null);
    y.push(height, height, null);
  }
  return {x, y, name, yaxis: 'y2', mode: 'lines', line: {width: 10, color: shade}, showlegend: false,
    hovertemplate: name + ' %{x}<extra></extra>'};
}

// the score's axis over the stretch shown: a small event would be flat beside the highest of the whole series
function scoreRange(entry, range) {
  const x = numbers(entry.x), y = numbers(entry.y);
  let top = Math.max(...LINES.map(([key]) => key === 'best' ? 0 : entry.thresholds[key] || 0)), least = Infinity;
  const line = entry.moving ? numbers(entry.line) : [];
  for (let i = 0; i < x.length; i++) {
    if (range && (x[i] < range[0] || x[i] > range[1]) || Number.isNaN(y[i])) continue;
    if (y[i] > top) top = y[i];
    if (line[i] > top) top = line[i];
    if (y[i] > 0 && y[i] < least) least = y[i];
  }
  if (!logScale.checked) return [Math.min(0, -0.03 * top), 1.06 * top || 1];
  return [Math.log10(Math.min(least, top) || 1e-3) - 0.05, Math.log10(top || 1) + 0.1];
}

function scoreTraces(entry) {
  const traces = [{x: entry.x, y: entry.y, name: 'score', mode: 'lines', connectgaps: false,
    line: {color: color('score'), width: 1}, hovertemplate: '%{y:.4g} at %{x}<extra></extra>'}];
  const ends = [entry.first, entry.last].map(value => time(entry, value));
  for (const [key, name, dash] of LINES) {
    const level = entry.thresholds[key];
    if (level === null) continue;
    traces.push({x: ends, y: [level, level], name: name + ' ' + level.toPrecision(4), mode: 'lines',
      line: {color: color(key === 'warning' ? 'warned' : key), dash, width: 1.5}, hoverinfo: 'skip'});
  }
  if (entry.moving) traces.push({x: entry.x, y: entry.line, name: 'threshold', mode: 'lines',
    line: {color: color('pot'), width: 1.5}, hoverinfo: 'skip'});
  traces.push(strip(entry, entry.labels, 'labelled', 1, color('strip')));
  traces.push(strip(entry, entry.alarms, 'alarm', 0, color('pot')));
  return traces;
}

// the metrics over the whole series, and in finer stretches around the chosen event once the chart shows little else
function metricTraces(entry, event, range) {
  const metrics = entry.metrics;
  if (!metrics) return [];
  // no more columns than pixels: the library would draw one of several, not the highest
  const columns = Math.max(scorePlot.clientWidth - (narrow() ? 140 : 220), 100);
  const parts = [metrics.cells];
  if (event && event.figure && range && range[1] - range[0] < 12 * (event.figure.cells.last - event.figure.cells.first))
    parts.push(event.figure.cells);
  return parts.map(cells => metricCells(entry, cells, metrics.metrics, metrics.top, columns));
}
function drawScores(entry, event, range) {
  const metrics = entry.metrics, num_lanes = metrics ? metrics.metrics.length : 0;
  const lane = root.classList.contains('print') ? 11 : narrow() ? 12 : 14, score = narrow() ? 190 : 240, strips = 46, gap = 14;
  const top = narrow() ? 112 : root.classList.contains('print') ? 76 : 58, bottom = narrow() ? 40 : 52, lanes = num_lanes * lane;
  // a margin that the library finds by itself costs a second drawing
  const names = metrics ? metrics.metrics.map(name => cut(name, narrow() ? 11 : 22)) : [];
  const left = Math.max(narrow() ? 42 : 66, 14 + (narrow() ? 5.2 : 6.3) * Math.max(0, ...names.map(name => name.length)));
  const fixed = axis => Object.assign({}, axis, {automargin: false});
  const inner = score + gap + strips + (lanes ? gap + lanes : 0), height = inner + top + bottom;
  scorePlot.style.height = height + 'px';
  const from = pixels => Math.max(1 - pixels / inner, 0);
  const shapes = entry.labels.map(([start, end]) => ({type: 'rect', xref: 'x', yref: 'y domain',
    x0: time(entry, start), x1: time(entry, end), y0: 0, y1: 1, fillcolor: color('label'), line: {width: 0},
    layer: 'below'}));
  if (event) shapes.push({type: 'rect', xref: 'x', yref: 'paper', x0: time(entry, event.from), x1: time(entry, event.to),
    y0: 0, y1: 1, line: {width: 1, dash: 'dot', color: color('ink')}});
  const shown = range || [entry.first, entry.last];
  const traces = [...scoreTraces(entry), ...metricTraces(entry, event, range)];
  Plotly.react(scorePlot, traces, layout(axis => ({
    shapes, height, margin: {l: left, r: right(), t: top, b: bottom},
    xaxis: Object.assign(fixed(axis), {type: entry.date ? 'date' : 'linear', anchor: lanes ? 'y3' : 'y2',
      range: shown.map(value => time(entry, value)), title: {text: narrow() ? '' : entry.date ? 'time (as in the data)' : 'row'}}),
    yaxis: Object.assign(fixed(axis), {type: logScale.checked ? 'log' : 'linear', domain: [from(score), 1],
      range: scoreRange(entry, range), title: {text: narrow() ? '' : 'score'}}),
    yaxis2: Object.assign(fixed(axis), {domain: [from(score + gap + strips), from(score + gap)], range: [-0.7, 1.7],
      fixedrange: true, showgrid: false, tickvals: [0, 1], ticktext: narrow() ? ['A', 'L'] : ['alarms', 'labels']}),
    ...(lanes ? {yaxis3: Object.assign(fixed(axis), {domain: [0, from(score + 2 * gap + strips)], fixedrange: true,
      range: [num_lanes - 0.5, -0.5], showgrid: false, tickvals: metrics.metrics.map((_, i) => i),
      ticktext: names.map(plain), tickfont: {size: narrow() ? 9 : 11}})} : {}),
  })), options());
  scorePlot.removeAllListeners('plotly_relayout');
  scorePlot.on('plotly_relayout', change => onZoom(entry, change));
  sayMetrics(entry, range);
}

// a zoom by hand is a choice of stretch too: the score's axis and the map follow it
function onZoom(entry, change) {
  const ends = change['xaxis.range'] || [change['xaxis.range[0]'], change['xaxis.range[1]']];
  if (change['xaxis.autorange']) chosen.range = null;
  else if (ends[0] !== undefined) chosen.range = ends.map(value => placeOf(entry, value));
  else return;
  by('whole').disabled = !chosen.range;
  drawScores(entry, eventOf(), chosen.range);
}

// says where the stretch shown has no metrics' scores, and lists each metric's highest one
function sayMetrics(entry, range) {
  const metrics = entry.metrics, said = by('metrics-said'), table = by('metrics-table');
  by('metrics-legend').hidden = table.hidden = !metrics;
  if (!metrics) {
    said.textContent = document.querySelector('.of-scores .absent') ? '' :
      'Metrics by time: metric_scores.parquet has no row of this machine; it keeps rows of events and a margin.';
    return;
  }
  const cells = metrics.cells, codes = decode(cells.codes, 'u1'), width = (cells.last - cells.first) / cells.bins;
  const inside = bin => !range || cells.first + (bin + 1) * width > range[0] && cells.first + bin * width < range[1];
  let blank = 0, all = 0;
  const best = metrics.metrics.map(() => [0, 0]);
  for (let bin = 0; bin < cells.bins; bin++) {
    let any = false;
    for (let row = 0; row < best.length; row++) {
      const code = codes[row * cells.bins + bin];
      if (code > 0) any = true;
      if (inside(bin) && code > best[row][0]) best[row] = [code, bin];
    }
    if (inside(bin)) { all++; if (!any) blank++; }
  }
  const left = metrics.left_out ? ` ${metrics.left_out} more metrics, none with a higher score, are left out.` : '';
  const why = 'metric_scores.parquet keeps rows of events and a margin (score.py --all_metric_scores keeps all).';
  said.textContent = (blank === 0 ? '' : blank === all ? `No metrics' scores in the stretch shown: ${why}` :
    `Metrics by time: blank where there are none, ${percent(blank / all)} of the stretch shown; ${why}`) + left;
  by('metrics-top').textContent = brief(metrics.top);
  const rows = best.map(([code, bin], i) => make('tr', {}, make('th', {scope: 'row'}, metrics.metrics[i]),
    make('td', {class: 'n'}, brief(scoreOf(code, metrics.top))),
    make('td', {class: 'n'}, code ? placeText(entry.date, cells.first + bin * width) : '–')));
  const whole = make('table', {}, make('caption', {}, 'Each metric\'s highest own score in the stretch shown'),
    headOf(['metric', 'highest score', 'from']), make('tbody', {}, ...rows));
  table.replaceChildren(make('summary', {}, 'The metrics as a table'),
    make('div', {class: 'scroll', role: 'region', tabindex: '0', 'aria-label': 'Metrics of the machine'}, whole));
}
