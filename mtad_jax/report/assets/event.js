// The chosen event: its first causes' values against what was expected, each in a panel with its band.

const eventPlot = by('event-chart');

function curve(cause, name) {
  return Array.from(decode(cause[name], 'u2'), code => code === 0 ? null : cause.low + cause.step * (code - 1));
}

function drawEvent(entry, event) {
  const card = by('event-card'), said = by('event-said'), figure = event && event.figure;
  by('event-now').textContent = event ? `Chosen: ${event.level} event, ${event.when}, ${event.ratio === null ? '' :
    brief(event.ratio) + ' times the threshold, '}first cause ${event.causes.length ? event.causes[0][0] : 'not named'}` : '';
  card.replaceChildren(...(event ? [fullCard(entry, event)] : []));
  eventPlot.hidden = !figure || !figure.causes.length;
  said.textContent = !event ? '' : !figure ? (entry.metrics ?
    'Not drawn: metric_scores.parquet has no row near this event.' : '') : figure.causes.length ?
    'Line: the value; dotted: what was expected; band: where it usually lies. Marked: the event.' : '';
  if (eventPlot.hidden) { Plotly.purge(eventPlot); return; }
  const x = Array.from(numbers(figure.x), value => time(entry, value)), traces = [], axes = {}, notes = [], shapes = [];
  const num = figure.causes.length, panel = narrow() ? 110 : 130, gap = 0.24 / num;
  const line = (cause, name, extra) => Object.assign({x, y: curve(cause, name), mode: 'lines', connectgaps: false,
    showlegend: false}, extra);
  figure.causes.forEach((cause, i) => {
    const axis = 'y' + (i ? i + 1 : ''), share = event.causes.find(([name]) => name === cause.metric)[1];
    const low = 1 - (i + 1) / num + gap / 2, high = 1 - i / num - gap / 2;
    const flat = {width: 0, color: color('band')};
    // an event of one row, or a row alone beside a gap, has no line to be seen
    const dots = x.length < 80 ? {mode: 'lines+markers', marker: {size: 4}} : {};
    traces.push(
      line(cause, 'band_low', {yaxis: axis, line: flat, hoverinfo: 'skip'}),
      line(cause, 'band_high', {yaxis: axis, line: flat, fill: 'tonexty', fillcolor: color('band'), hoverinfo: 'skip'}),
      line(cause, 'expected', {yaxis: axis, line: {color: color('best'), width: 1.5, dash: 'dot'},
        hovertemplate: 'expected %{y:.4g}<extra></extra>'}),
      line(cause, 'actual', {yaxis: axis, line: {color: color('score'), width: 2}, ...dots,
        hovertemplate: '%{y:.4g} at %{x}<extra></extra>'}));
    axes['yaxis' + (i ? i + 1 : '')] = {domain: [low, high], nticks: 4, automargin: false};
    notes.push({xref: 'paper', yref: 'paper', x: 0, y: high, xanchor: 'left', yanchor: 'bottom', showarrow: false,
      font: {size: 12, color: color('ink')}, text: `${plain(cut(cause.metric, narrow() ? 30 : 60))} · ${percent(share)}`});
  });
  shapes.push({type: 'rect', xref: 'x', yref: 'paper', x0: time(entry, event.from), x1: time(entry, event.to), y0: 0, y1: 1,
    fillcolor: color('marked'), line: {width: 1, dash: 'dot', color: color('soft')}, layer: 'below'});
  eventPlot.style.height = num * panel + 70 + 'px';
  Plotly.react(eventPlot, traces, layout(axis => {
    const all = {};
    for (const [name, own] of Object.entries(axes)) all[name] = Object.assign({}, axis, own);
    return {shapes, annotations: notes, height: num * panel + 70, margin: {l: narrow() ? 50 : 66, r: right(), t: 24, b: 52},
      xaxis: Object.assign({}, axis, {automargin: false, type: entry.date ? 'date' : 'linear', anchor: 'y' + (num > 1 ? num : ''),
        title: {text: narrow() ? '' : entry.date ? 'time (as in the data)' : 'row'}}), ...all};
  }), options());
}
