// Event cards: short ones of the fleet's worst events, and the whole one of the event chosen.

const LEVELS = {critical: 'critical', warning: 'warning'};

function headline(event) {
  const parts = [make('span', {class: 'badge ' + event.level}, LEVELS[event.level] || event.level)];
  if (event.open) parts.push(make('span', {class: 'badge open'}, 'still on'));
  parts.push(make('strong', {class: 'ratio'}, event.ratio === null ? '' : brief(event.ratio) + ' ×'),
    make('span', {class: 'soft'}, ' threshold'));
  return make('p', {class: 'head'}, ...parts);
}

// the causes as one bar that sums to 1, and as a list
function causesOf(event) {
  if (!event.causes.length) return [make('p', {class: 'soft'}, 'No metric stands above its usual level: no cause is named.')];
  const parts = event.causes.map(([name, share], i) => [name, share, 'c' + i]);
  const [count, rest] = event.others;
  if (count) parts.push([`${count} others`, rest, 'rest']);
  const bar = make('div', {class: 'shares', 'aria-hidden': 'true'});
  const list = make('ul', {class: 'causes', 'aria-label': 'Causes, shares of 1'});
  for (const [name, share, shade] of parts) {
    const piece = make('span', {class: shade});
    piece.style.flexGrow = String(share);
    bar.append(piece);
    list.append(make('li', {}, make('span', {class: 'dot ' + shade, 'aria-hidden': 'true'}),
      make('span', {class: 'name'}, name), make('span', {class: 'n'}, percent(share))));
  }
  return [bar, list];
}

const fact = (name, ...value) => [make('dt', {}, name), make('dd', {}, ...value)];

function shortCard(index, place) {
  const entry = data[index], event = entry.events[place];
  const button = make('button', {type: 'button', class: 'show'}, 'Show');
  button.setAttribute('aria-label', `Show event of ${entry.name}, ${event.when}`);
  button.addEventListener('click', () => choose(index, {event: place, range: 'event', move: true}));
  return make('article', {class: 'card ' + event.level},
    make('div', {class: 'title'}, make('h3', {}, entry.name), button), headline(event),
    make('p', {class: 'when'}, event.when, make('span', {class: 'soft'}, ' · ' + event.length)),
    ...causesOf(event), make('p', {class: 'soft'}, event.rest));
}

// a value, marked where it lies outside its band
function against(value, low, high) {
  const side = value === null || low === null || high === null ? '' : value > high ? 'above' : value < low ? 'below' : '';
  const mark = {above: ' \u25b2', below: ' \u25bc'}[side];
  return make('td', {class: ('n ' + side).trim()}, brief(value), ...(mark ? [make('span', {'aria-hidden': 'true'}, mark),
    make('span', {class: 'visually-hidden'}, ` ${side} its band`)] : []));
}

const signed = change => (change > 0 ? '+' : '') + brief(change);

function headOf(names) {
  return make('thead', {}, make('tr', {}, ...names.map((name, i) =>
    make('th', i ? {scope: 'col', class: 'n'} : {scope: 'col'}, name))));
}

function valuesTable(event) {
  if (!event.values.length) return make('p', {class: 'soft'}, event.causes.length ?
    'Values against what was expected: metric_scores.parquet has no row of the peak.' : '');
  const changes = new Map(event.attention || []);
  const rows = event.values.map(([name, actual, expected, low, high]) => make('tr', {}, make('th', {scope: 'row'}, name),
    against(actual, low, high), make('td', {class: 'n'}, brief(expected)),
    make('td', {class: 'n'}, `${brief(low)} to ${brief(high)}`),
    ...(event.attention ? [make('td', {class: 'n'}, changes.has(name) ? signed(changes.get(name)) : '–')] : [])));
  return make('div', {class: 'scroll', role: 'region', tabindex: '0', 'aria-label': 'Values at the peak'},
    make('table', {}, make('caption', {}, `At the peak, ${event.peak_at}`),
      headOf(['metric', 'value', 'expected', 'band', ...(event.attention ? ['attention, sd'] : [])]),
      make('tbody', {}, ...rows)));
}

// how the network's attention changed, of the metrics that the table of values does not have
function attentionText(event) {
  const listed = new Set(event.values.map(([name]) => name)), others = event.attention.filter(([name]) => !listed.has(name));
  const words = others.map(([name, change]) => `${name} ${signed(change)}`).join(', ');
  return words && `${words} standard deviations, against its calibration part`;
}

function fullCard(entry, event) {
  const facts = [...fact('when', event.when, make('span', {class: 'soft'}, ' · ' + event.length)),
    ...fact('how severe', `${event.severity === null ? '–' : brief(event.severity)} of 1` +
      (event.ratio === null ? '' : `; at its peak ${brief(event.ratio)} × the threshold`)),
    ...fact(entry.role ? 'rest of its role' : 'role', event.rest)];
  if (event.model) facts.push(...fact('scored by', event.model));
  if (event.cause_set) facts.push(...fact('cause set', event.cause_set.length ? event.cause_set.join(', ') +
    ': without them its strongest row is usual' : 'none: its strongest row is usual by itself'));
  if (event.attention && attentionText(event))
    facts.push(...fact(event.values.length ? 'attention also' : 'attention', attentionText(event)));
  return make('article', {class: 'card full ' + event.level},
    make('div', {class: 'title'}, make('h4', {}, entry.name)), headline(event), make('dl', {}, ...facts),
    make('h5', {}, 'Causes'), ...causesOf(event), valuesTable(event));
}

function drawWorst() {
  const place = by('worst-cards');
  if (place) place.replaceChildren(...fleet.worst.map(([index, event]) => shortCard(index, event)));
}

// the machine's own events as buttons, the chosen one pressed
function drawEventList(index, chosen) {
  const entry = data[index], shown = entry.events.length;
  by('events-said').textContent = entry.num_events === 0 ? 'This machine has no event.' :
    shown === 0 ? `${entry.num_events.toLocaleString('en')} events, none among the fleet's worst, which alone have a card.` :
    `${shown} of ${entry.num_events.toLocaleString('en')}, those that are still on first, then the worst` +
    (shown < entry.num_events ? '; the table of all events has the others.' : '.');
  by('event-list').replaceChildren(...entry.events.map((event, place) => {
    const first = event.causes.length ? `${event.causes[0][0]} ${percent(event.causes[0][1])}` : 'no cause named';
    const button = make('button', {type: 'button', class: event.level, 'aria-pressed': String(place === chosen)},
      make('span', {class: 'ratio'}, event.ratio === null ? '–' : brief(event.ratio) + ' ×'),
      make('span', {}, event.since), make('span', {class: 'soft'}, first));
    button.addEventListener('click', () => {
      choose(index, {event: place, range: 'event'});
      by('event-list').children[place].firstChild.focus({preventScroll: true});
    });
    return make('li', {}, button);
  }));
}
