// One machine's training: losses, and where it was rolled back or retired the learning rate with those steps marked.

const lossPlot = by('loss-chart');

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
  by('no-losses').hidden = traces.length > 0;
  by('set-back').hidden = !trouble || traces.length === 0;
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
    title: {text: narrow() ? '' : 'rate'}})} : {})), options());
}
