// The fleet's map: a line a machine. A click or Enter opens the machine at that stretch; arrows move over the lines.

const fleet = JSON.parse(by('fleet-data').textContent);
const strips = [...document.querySelectorAll('#fleet-map canvas')];
const codesOf = new Map(strips.map(strip => [strip, decode(fleet.strips[strip.dataset.index], 'u2')]));
const cursor = {line: 0, bin: fleet.bins - 1, shown: false};
let paintedWidth = 0;
const tip = make('div', {class: 'tip', hidden: ''});
const SHADES = 32, shades = {};
const HEIGHTS = {quiet: 0.55, warning: 0.8, critical: 1};  // alarms stand out by height as well as by colour

function paint(strip) {
  const scale = root.classList.contains('print') ? 3 : window.devicePixelRatio || 1;
  const width = Math.max(Math.floor(strip.clientWidth), 1), height = Math.max(strip.clientHeight, 1);
  strip.width = width * scale;
  strip.height = height * scale;
  const brush = strip.getContext('2d');
  brush.scale(scale, scale);
  brush.fillStyle = shades.empty;
  brush.fillRect(0, 0, width, height);
  const columns = highest(codesOf.get(strip), width);
  // the higher a code, the later it is painted: a spike of one column is made two pixels wide and stays on top
  for (const level of Object.keys(HEIGHTS)) columns.forEach((code, i) => {
    if (levelOf(code) !== level) return;
    const from = i * width / columns.length, to = (i + 1) * width / columns.length, tall = HEIGHTS[level] * height;
    const ratio = ratioOf(code), deep = level === 'critical' ? Math.log(ratio) / Math.log(20) : ratio;
    brush.fillStyle = shades[level][Math.round(Math.min(deep, 1) * SHADES)];
    brush.fillRect(from, height - tall, level === 'quiet' ? to - from + 0.5 : Math.max(to - from, 2), tall);
  });
  if (cursor.shown && strips[cursor.line] === strip) {
    brush.strokeStyle = color('ink');
    brush.lineWidth = 2;
    brush.strokeRect((cursor.bin + 0.5) * width / fleet.bins - 3, 1, 6, height - 2);
  }
}

const stretch = bin => [bin, bin + 1].map(edge => fleet.first + edge * (fleet.last - fleet.first) / fleet.bins);

function saying(strip, bin) {
  const code = codesOf.get(strip)[bin], level = levelOf(code), [from, to] = stretch(bin);
  const words = {none: 'no score', quiet: 'no alarm', warning: 'warning', critical: 'critical'}[level];
  const height = level === 'none' ? '' : ', highest ' + brief(ratioOf(code)) + ' × threshold';
  return `${data[strip.dataset.index].name}, ${placeText(fleet.dated, from)} to ` +
    `${placeText(fleet.dated, fleet.dated ? to : Math.max(from, to - 1)).replace('row ', '')}: ${words}${height}`;
}

function openAt(strip, bin) {
  const [from, to] = stretch(bin), index = Number(strip.dataset.index), entry = data[index];
  if (entry.date !== fleet.dated) {  // a fleet of which some have no clock is drawn by rows
    choose(index, {move: true});
    return;
  }
  const half = Math.max((fleet.last - fleet.first) * 0.02, to - from);
  const range = [Math.max(from - half, entry.first), Math.min(to + half, entry.last)];
  const near = entry.events.map((event, place) => [Math.max(event.from - to, from - event.to, 0), place]);
  near.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const event = near.length && near[0][0] < half ? near[0][1] : undefined;
  choose(index, range[0] < range[1] ? {event, range, move: true} : {event, move: true});
}

const binAt = (strip, event) => {
  const box = strip.getBoundingClientRect();
  return Math.min(Math.max(Math.floor((event.clientX - box.left) / box.width * fleet.bins), 0), fleet.bins - 1);
};

// a pointer is wider than a column: the highest of those under it
function binUnder(strip, event) {
  const middle = binAt(strip, event), codes = codesOf.get(strip);
  const reach = Math.max(Math.round(3 * fleet.bins / strip.clientWidth), 0);
  let best = middle;
  for (let bin = Math.max(middle - reach, 0); bin <= Math.min(middle + reach, fleet.bins - 1); bin++)
    if (codes[bin] > codes[best] && codes[bin] >= WARNING_FROM) best = bin;
  return best;
}

function showTip(strip, event) {
  tip.textContent = saying(strip, binUnder(strip, event));
  tip.hidden = false;
  const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = Math.max(left, 4) + 'px';
  tip.style.top = event.clientY + 16 + 'px';
}

function moveTo(line, bin) {
  const before = strips[cursor.line];
  Object.assign(cursor, {line: Math.min(Math.max(line, 0), strips.length - 1),
    bin: Math.min(Math.max(bin, 0), fleet.bins - 1), shown: true});
  before.tabIndex = -1;
  const strip = strips[cursor.line];
  strip.tabIndex = 0;
  if (before !== strip) paint(before);
  paint(strip);
  if (document.activeElement !== strip) strip.focus();
  strip.setAttribute('aria-valuenow', String(cursor.bin));
  strip.setAttribute('aria-valuetext', saying(strip, cursor.bin));
}

// the next stretch with an alarm in a direction, not the one that the cursor is in
function nextAlarm(codes, bin, step) {
  const isAlarm = at => codes[at] >= WARNING_FROM;
  let at = bin + step;
  while (at >= 0 && at < codes.length && isAlarm(at) && isAlarm(at - step)) at += step;
  while (at >= 0 && at < codes.length && !isAlarm(at)) at += step;
  return at >= 0 && at < codes.length ? at : bin;
}

function onKey(strip, event) {
  const page = Math.round(fleet.bins / 10), {line, bin} = cursor, codes = codesOf.get(strip);
  const sideways = step => event.shiftKey ? nextAlarm(codes, bin, step) : bin + step;
  const targets = {ArrowLeft: () => [line, sideways(-1)], ArrowRight: () => [line, sideways(1)],
    ArrowUp: () => [line - 1, bin], ArrowDown: () => [line + 1, bin], Home: () => [line, 0],
    End: () => [line, fleet.bins - 1], PageUp: () => [line, bin - page], PageDown: () => [line, bin + page]};
  if (event.key === 'Enter' || event.key === ' ') openAt(strip, bin);
  else if (targets[event.key]) moveTo(...targets[event.key]());
  else return;
  event.preventDefault();
}

function drawFleet() {
  for (const level of Object.keys(HEIGHTS))
    shades[level] = Array.from({length: SHADES + 1}, (_, i) => mix(ramp(level), i / SHADES));
  shades.empty = color('empty');
  strips.forEach(paint);
  paintedWidth = by('fleet-map').clientWidth;
  const place = by('fleet-axis'), space = place.clientWidth, count = space < 300 ? 2 : space < 480 ? 3 : 5, ticks = [];
  for (let i = 0; i < count; i++) {
    const value = fleet.first + i / (count - 1) * (fleet.last - fleet.first);
    ticks.push(make('span', {}, placeText(fleet.dated, value).slice(0, fleet.dated && space < 300 ? 10 : 16)));
  }
  place.replaceChildren(...ticks);
}

function startFleet() {
  document.body.append(tip);
  strips.forEach((strip, line) => {
    // what arrows move along a line, and what is told of the place, is a slider to a screen reader
    for (const [name, value] of [['role', 'slider'], ['aria-valuemin', 0], ['aria-valuemax', fleet.bins - 1],
      ['aria-valuenow', cursor.bin], ['aria-valuetext', saying(strip, cursor.bin)]]) strip.setAttribute(name, String(value));
    strip.addEventListener('click', event => openAt(strip, binUnder(strip, event)));
    strip.addEventListener('pointermove', event => { if (event.pointerType === 'mouse') showTip(strip, event); });
    strip.addEventListener('pointerleave', () => { tip.hidden = true; });
    strip.addEventListener('keydown', event => onKey(strip, event));
    strip.addEventListener('focus', () => { if (cursor.line !== line || !cursor.shown) moveTo(line, cursor.bin); });
    strip.addEventListener('blur', () => { cursor.shown = false; paint(strip); });
  });
  if (strips.length) {
    strips[0].tabIndex = 0;
    new ResizeObserver(() => { if (by('fleet-map').clientWidth !== paintedWidth) drawFleet(); }).observe(by('fleet-map'));
  }
}
