// Heat maps' codes into colours and figures; the counterpart of heat.py, whose numbers stand here.

const WARNING_FROM = 20000, CRITICAL_FROM = 40000, LAST = 65535, HIGHEST_RATIO = 1000;
const levelOf = code => code === 0 ? 'none' : code < WARNING_FROM ? 'quiet' : code < CRITICAL_FROM ? 'warning' : 'critical';

// score / threshold of a code of the fleet's map
function ratioOf(code) {
  if (code < WARNING_FROM) return (code - 1) / (WARNING_FROM - 2);
  if (code < CRITICAL_FROM) return (code - WARNING_FROM) / (CRITICAL_FROM - 1 - WARNING_FROM);
  return Math.exp((code - CRITICAL_FROM) / (LAST - CRITICAL_FROM) * Math.log(HIGHEST_RATIO));
}

// a metric's score of a code of a machine's map, whose highest score is `top`
const scoreOf = (code, top) => code === 0 ? NaN : Math.expm1((code - 1) / 254 * Math.log1p(top));

// the highest code of each of `columns` stretches: where there are fewer pixels than stretches, no spike is lost
function highest(codes, columns) {
  if (columns >= codes.length) return codes;
  const found = new codes.constructor(columns);
  for (let i = 0; i < codes.length; i++) {
    const column = Math.floor(i * columns / codes.length);
    if (codes[i] > found[column]) found[column] = codes[i];
  }
  return found;
}

// colours between stops '#rrggbb', share from 0 to 1
function mix(stops, share) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2);
  const parts = [stops[low], stops[low + 1]].map(stop => [1, 3, 5].map(at => parseInt(stop.slice(at, at + 2), 16)));
  return 'rgb(' + parts[0].map((from, i) => Math.round(from + (parts[1][i] - from) * (place - low))).join(',') + ')';
}
const ramp = name => color(name).split(/[\s,]+/);

// a colour scale by log(1 + value) for figures that are not logarithms, so that the reader is told the figures
function logScaleColors(name, top) {
  const stops = ramp(name), steps = 16;
  const place = share => top > 0 && share < 1 ? Math.expm1(share * Math.log1p(top)) / top : share;
  return Array.from({length: steps + 1}, (_, i) => [place(i / steps), mix(stops, i / steps)]);
}

// one map of metrics by time, ready for the plotting library: rows of figures, and where its columns stand
function metricCells(entry, cells, names, top, mostColumns) {
  const codes = decode(cells.codes, 'u1'), scores = Float32Array.from({length: 256}, (_, code) => scoreOf(code, top));
  const z = names.map((_, row) => Float32Array.from(
    highest(codes.subarray(row * cells.bins, (row + 1) * cells.bins), mostColumns), code => scores[code]));
  const columns = Math.min(cells.bins, mostColumns), width = (cells.last - cells.first) / columns;
  const x = Array.from({length: columns + 1}, (_, i) => time(entry, cells.first + i * width));
  return {type: 'heatmap', x, y: names.map((_, i) => i), z, text: names.map(name => Array(columns).fill(plain(name))),
    hovertemplate: '%{text}: %{z:.3g}, from %{x}<extra></extra>', hoverongaps: false, yaxis: 'y3',
    zmin: 0, zmax: top || 1, showscale: false, colorscale: logScaleColors('ramp', top)};
}
