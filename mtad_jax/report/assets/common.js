// What all parts of the page use: its data, its colours, numbers and times as text, and the charts' common settings.

const by = id => document.getElementById(id);
const data = JSON.parse(by('report-data').textContent);
const root = document.documentElement;
const narrow = () => window.innerWidth < 640 && !root.classList.contains('print');
const color = name => getComputedStyle(root).getPropertyValue('--' + name).trim();

// the plotting library reads markup in its labels
const plain = text => text.replace(/&/g, '&amp;').replace(/\u003c/g, '&lt;').replace(/>/g, '&gt;');
const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + '…' : text;

// a place on a machine's axis, as the plotting library takes it and as a person reads it
const time = (entry, value) => entry.date ? new Date(value).toISOString().replace('Z', '') : value;
const placeOf = (entry, value) => entry.date ? Date.parse(String(value).replace(' ', 'T') + 'Z') : Number(value);
const placeText = (dated, value) => dated
  ? new Date(value).toISOString().slice(0, 16).replace('T', ' ')
  : 'row ' + Math.round(value).toLocaleString('en');

function brief(value) {
  if (value === null || Number.isNaN(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString('en', {maximumFractionDigits: digits});
}
const percent = share => (100 * share).toFixed(share >= 0.0995 || share < 0.0005 ? 0 : 1) + '%';

const KINDS = {u1: Uint8Array, u2: Uint16Array, f4: Float32Array, f8: Float64Array, i4: Int32Array};

function decode(text, kind) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return new KINDS[kind](bytes.buffer);
}
const numbers = array => decode(array.bdata, array.dtype);

// an element with attributes and children, all text as text
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// the charts' buttons stand in a margin of their own
const hasButtons = () => !narrow() && !root.classList.contains('print');
const right = () => hasButtons() ? 44 : 12;

function layout(extra) {
  const axis = {gridcolor: color('line'), linecolor: color('line'), zeroline: false, automargin: true};
  return Object.assign({
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: {color: color('ink'), size: 13},
    margin: {l: narrow() ? 42 : 60, r: right(), t: 30, b: 40}, hovermode: 'closest',
    legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom'}, dragmode: narrow() ? false : 'zoom',
    modebar: {bgcolor: 'rgba(0,0,0,0)', color: color('soft'), activecolor: color('accent'),
      orientation: 'v'},
    xaxis: Object.assign({}, axis), yaxis: Object.assign({}, axis),
  }, extra(axis));
}

// the buttons are named one by one: the library's own set has one that shares the chart with a web service
const options = () => ({responsive: true, displaylogo: false, scrollZoom: false,
  displayModeBar: hasButtons(),
  modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'zoomIn2d', 'zoomOut2d', 'resetScale2d']]});
