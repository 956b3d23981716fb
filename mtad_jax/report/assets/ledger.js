// The ledger: precision a week with its interval, alarms a week, and where changes begin to count. See ledger.py.
// Everything written into a chart here is a number, a date or a word from this file.

function drawLedger() {
  const place = document.getElementById('ledger-data');
  if (!place) return;
  const found = JSON.parse(place.textContent);
  const at = value => found.dated ? new Date(value).toISOString().replace('Z', '') : value;
  const of = name => found.weeks.map(week => week[name]);
  const x = of('x').map(at), customdata = of('week').map(week => found.dated ? 'week of ' + week : 'week ' + week);
  const num_weeks = Math.max(1, Math.round((found.last - found.first) / found.step));
  const ticks = {range: [at(found.first), at(found.last)], tick0: at(found.tick),
    dtick: found.step * Math.ceil(num_weeks / (narrow() ? 4 : 10)),
    tickformat: found.dated ? (narrow() ? '%m-%d' : '%Y-%m-%d') : 'd', type: found.dated ? 'date' : 'linear',
    title: {text: narrow() ? '' : found.dated ? 'week, from its Monday (UTC)' : 'week, counted'}};
  const bars = (name, title, shade, extra) => Object.assign({type: 'bar', x, y: of(name), customdata, name: title,
    width: 0.85 * found.step, marker: {color: color(shade)},
    hovertemplate: '%{customdata}: %{y} ' + title + '<extra></extra>'}, extra);

  const value = of('value'), error = (name, sign) => value.map(
    (middle, i) => middle === null ? null : sign * (found.weeks[i][name] - middle));
  Plotly.react(document.getElementById('precision-chart'), [
    {x, y: value, customdata: customdata.map((week, i) => [week, found.weeks[i].low, found.weeks[i].high]),
      name: 'precision', mode: 'markers', marker: {size: 9, color: color('score')},
      error_y: {type: 'data', symmetric: false, array: error('high', 1), arrayminus: error('low', -1),
        color: color('score'), thickness: 1.5, width: narrow() ? 3 : 6},
      hovertemplate: '%{customdata[0]}: %{y:.3f}, interval %{customdata[1]:.3f} to %{customdata[2]:.3f}' +
        '<extra></extra>'},
    bars('reviewed', 'reviewed', 'best', {yaxis: 'y2'}),
    bars('open', 'not reviewed', 'soft', {yaxis: 'y2'}),
  ], layout(axis => ({barmode: 'stack',
    xaxis: Object.assign({}, axis, ticks, {anchor: 'y2'}),
    yaxis: Object.assign({}, axis, {domain: [0.36, 1], range: [-0.03, 1.03], fixedrange: true,
      title: {text: narrow() ? '' : 'precision'}}),
    yaxis2: Object.assign({}, axis, {domain: [0, 0.26], rangemode: 'tozero', nticks: 4,
      title: {text: narrow() ? '' : 'alarms'}}),
  })), options());

  const marks = {};
  for (const change of found.changes) {
    const name = 'change of ' + change.kinds.join(', ');
    const shades = {model: 'other', thresholds: 'score', prior: 'initial', settings: 'best'};
    marks[name] = marks[name] || {x: [], y: [], text: [], customdata: [], name, yaxis: 'y2', mode: 'lines+text',
      textposition: 'middle right', cliponaxis: false, textfont: {color: color(shades[change.kinds[0]])},
      line: {color: color(shades[change.kinds[0]]), width: 2, dash: 'dash'},
      hovertemplate: 'change %{customdata} begins to count<extra></extra>'};
    marks[name].x.push(at(change.x), at(change.x), null);
    marks[name].y.push(0, 0.96, null);
    marks[name].text.push('', String(change.number), '');
    marks[name].customdata.push(change.number, change.number, null);
  }
  Plotly.react(document.getElementById('false-chart'), [
    bars('false', 'false', 'pot'), bars('open', 'not reviewed', 'soft'), ...Object.values(marks),
  ], layout(axis => ({barmode: 'stack',
    xaxis: Object.assign({}, axis, ticks),
    yaxis: Object.assign({}, axis, {rangemode: 'tozero', title: {text: narrow() ? '' : 'alarms a week'}}),
    yaxis2: {overlaying: 'y', range: [0, 1], visible: false, fixedrange: true},
  })), options());
}
