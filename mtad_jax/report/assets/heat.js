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

// one map of metrics by time, ready for the plotting library: rows of figures, and where its columns stand
function metricCells(entry, cells, names, top, mostColumns) {
  const codes = decode(cells.codes, 'u1'), z = [], shown = [];
  let columns = cells.bins;
  for (let row = 0; row < names.length; row++) {
    const own = highest(codes.subarray(row * cells.bins, (row + 1) * cells.bins), mostColumns);
    columns = own.length;
    const scores = Float32Array.from(own, code => scoreOf(code, top));
    shown.push(scores);
    z.push(scores.map(Math.log1p));
  }
  const width = (cells.last - cells.first) / columns;
  const x = Array.from({length: columns + 1}, (_, i) => time(entry, cells.first + i * width));
  return {type: 'heatmap', x, y: names.map((_, i) => i), z, customdata: shown,
    text: names.map(name => Array(columns).fill(plain(name))),
    hovertemplate: '%{text}: %{customdata:.3g}, from %{x}<extra></extra>', zmin: 0, zmax: Math.log1p(top) || 1, showscale: false, yaxis: 'y3', xgap: 0, ygap: 1, hoverongaps: false,
    colorscale: ramp('ramp').map((stop, i, all) => [i / (all.length - 1), stop])};
}
