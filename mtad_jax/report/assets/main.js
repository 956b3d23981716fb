// What is chosen, and what a choice draws: a machine, one of its events, and the stretch of time shown.

const select = by('machine'), logScale = by('log-scale'), onlyThis = by('only-this');
const chosen = {machine: fleet.begin, event: 0, range: null};

const eventOf = () => data[chosen.machine].events[chosen.event];

// the chosen event with as much on both sides as it is long, at least thirty rows
function eventRange(entry, event) {
  const figure = event.figure, own = event.to - event.from;
  const around = Math.max(own, figure ? 1.5 * (figure.cells.last - figure.cells.first) : (entry.last - entry.first) / 50);
  return [Math.max(event.from - around, entry.first), Math.min(event.to + around, entry.last)];
}

// Args: index of a machine; event: place among its cards, the first where it is left out; range: [from, to] on its
// axis, 'event' for the chosen one's surroundings, else the whole series; move: whether the reader goes there.
function choose(index, {event = 0, range = null, move = false} = {}) {
  const entry = data[index], isOther = index !== chosen.machine;
  Object.assign(chosen, {machine: index, event});
  chosen.range = range === 'event' ? (eventOf() ? eventRange(entry, eventOf()) : null) : range;
  select.value = String(index);
  drawMachine();
  if (isOther) drawLosses(entry);
  if (move) {
    by('chosen-machine').scrollIntoView({block: 'start'});
    by('chosen-machine').focus({preventScroll: true});
  }
}

function drawMachine() {
  const entry = data[chosen.machine], event = eventOf();
  for (const place of document.querySelectorAll('.chosen')) place.textContent = entry.name;
  by('summary').textContent = entry.summary;
  by('to-event').disabled = !event;
  by('whole').disabled = !chosen.range;
  drawScores(entry, event, chosen.range);
  drawEventList(chosen.machine, chosen.event);
  drawEvent(entry, event);
  for (const button of document.querySelectorAll('button.go'))
    button.setAttribute('aria-current', String(Number(button.dataset.index) === chosen.machine));
  filterTables();
}

function filterTables() {
  const name = data[chosen.machine].name;
  for (const row of document.querySelectorAll('tr[data-machine]'))
    row.hidden = onlyThis.checked && row.dataset.machine !== name;
}

function drawAll() {
  drawFleet();
  drawWorst();
  drawMachine();
  drawLosses(data[chosen.machine]);
  drawLedger();
}

// paper is white and narrow, whatever the screen is
function print(isOn) {
  root.classList.toggle('print', isOn);
  // a table that is too wide would make the printer shrink the whole page
  for (const table of document.querySelectorAll('.scroll table')) table.style.zoom = '';
  if (isOn) for (const table of document.querySelectorAll('.scroll table'))
    table.style.zoom = String(Math.min(1, table.parentElement.clientWidth / (table.scrollWidth || 1)));
  for (const chart of document.querySelectorAll('.chart')) if (chart.data && !chart.hidden) Plotly.purge(chart);
  drawAll();
}

startFleet();
select.addEventListener('change', () => choose(Number(select.value)));
logScale.addEventListener('change', drawMachine);
onlyThis.addEventListener('change', filterTables);
by('whole').addEventListener('click', () => choose(chosen.machine, {event: chosen.event}));
by('to-event').addEventListener('click', () => choose(chosen.machine, {event: chosen.event, range: 'event'}));
for (const button of document.querySelectorAll('button.go'))
  button.addEventListener('click', () => choose(Number(button.dataset.index), {move: true}));
for (const look of ['(prefers-color-scheme: dark)', '(max-width: 639px)'])
  matchMedia(look).addEventListener('change', drawAll);
window.addEventListener('beforeprint', () => print(true));
window.addEventListener('afterprint', () => print(false));
select.value = String(chosen.machine);
// what is wrong stands on the screen before the larger charts are drawn
drawFleet();
drawWorst();
requestAnimationFrame(() => setTimeout(() => {
  drawMachine();
  drawLosses(data[chosen.machine]);
  drawLedger();
  performance.mark('drawn');
  setTimeout(() => root.classList.add('drawn'));
}));
