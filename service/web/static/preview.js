// The page Preview: what other settings would have found is shown day by day, while older days are decided.

import { question } from './archive.js';
import { base, say } from './page.js';

const form = document.getElementById('preview');
const cancel = document.getElementById('cancel');
const progress = document.getElementById('progress');
const NUMBERS = ['start_margin', 'keep_margin', 'min_duration_s', 'bridge_s'];
const KINDS = ['new', 'gone', 'changed', 'kept'];
const WORDS = { new: 'new', gone: 'gone', changed: 'other length', kept: 'kept' };
const LISTED = 50;
const SHORTEST_BAR_S = 240; // a shorter event would not be seen on the line of a day

let running = null;

function made(tag, text = '', kind = '') {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function drawn(tag, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const many = (count, one) => `${count} ${one}${count === 1 ? '' : 's'}`;
const clock = (us) => new Date(us / 1000).toLocaleTimeString();
const dayOf = (us) => new Date(us / 1000).toLocaleDateString('sv');

// Only what is different from what is in force.
function changed() {
  const found = {};
  for (const name of NUMBERS) {
    const input = form.elements[name];
    if (Number(input.value) !== Number(input.defaultValue)) found[name] = Number(input.value);
  }
  return found;
}

function showSpan() {
  document.getElementById('span').textContent = many(Number(form.elements.days.value), 'day');
}

// What goes into the site file. A number of TOML needs a digit on both sides of its point, as JavaScript writes it.
function showLines() {
  const lines = Object.entries(changed()).map(([name, value]) => `${name} = ${value}`);
  const rule = Boolean(form.elements.fusion?.value);
  document.getElementById('toml').textContent = lines.join('\n');
  document.getElementById('lines').hidden = !lines.length;
  document.getElementById('rule').hidden = !rule;
  document.getElementById('save').hidden = !lines.length && !rule;
  document.getElementById('copied').textContent = '';
}

function lane(day, kinds, name, listed) {
  const row = made('div', '', 'lane');
  const begin = new Date(`${day}T00:00`).getTime() / 1000;
  const end = new Date(begin * 1000).setDate(new Date(begin * 1000).getDate() + 1) / 1000;
  const line = drawn('svg', {
    viewBox: `0 0 ${end - begin} 10`,
    preserveAspectRatio: 'none',
    role: 'img',
    'aria-label': `${name} on ${day}`,
  });
  for (const each of listed.filter((one) => kinds.includes(one.kind))) {
    const width = Math.max((each.end_us - each.start_us) / 1e6, SHORTEST_BAR_S);
    const bar = drawn('rect', { x: each.start_us / 1e6 - begin, y: 0, width, height: 10, class: each.kind });
    const title = drawn('title', {});
    title.textContent = `${each.label}, ${clock(each.start_us)}`;
    bar.append(title);
    line.append(bar);
  }
  row.append(made('span', name), line);
  return row;
}

function entry(each) {
  const item = made('li', '', `event ${each.kind}`);
  if (each.event_id) {
    const picture = document.createElement('img');
    Object.assign(picture, { loading: 'lazy', alt: '', width: 96, height: 54 });
    picture.src = `${base}api/v1/events/${each.event_id}/snapshot.webp`;
    picture.addEventListener('error', () => picture.replaceWith(made('span', '', 'nopicture')));
    item.append(picture);
  } else {
    item.append(made('span', '', 'nopicture'));
  }
  const text = document.createElement('div');
  const label = made(each.event_id ? 'a' : 'span', each.label, 'label');
  if (each.event_id) label.href = `${base}events/${each.event_id}`;
  const length = ((each.end_us - each.start_us) / 1e6).toFixed(0);
  text.append(made('span', WORDS[each.kind], 'badge'), label, made('span', `${clock(each.start_us)}, ${length} s`));
  if (each.kind === 'changed') {
    const before = ((each.before_end_us - each.before_start_us) / 1e6).toFixed(0);
    text.append(made('span', `before ${clock(each.before_start_us)}, ${before} s`, 'faint'));
  }
  text.append(made('span', `margin ${each.margin.toFixed(2)}`, 'faint'));
  item.append(text);
  return item;
}

function section(day, listed) {
  const part = made('section', '', 'timeline');
  const count = (kind) => listed.filter((each) => each.kind === kind).length;
  part.setAttribute('aria-label', day);
  part.append(made('h2', day), made('p', KINDS.map((kind) => `${count(kind)} ${WORDS[kind]}`).join(', ')));
  part.append(lane(day, ['new'], 'new', listed), lane(day, ['gone'], 'gone', listed));
  part.append(lane(day, ['kept', 'changed'], 'in both', listed));
  const hours = made('div', '', 'hours');
  hours.setAttribute('aria-hidden', 'true');
  hours.append(...['0', '6', '12', '18', '24'].map((hour) => made('span', hour)));
  part.append(hours);
  const order = (one, two) => (one.kind === 'kept') - (two.kind === 'kept') || two.start_us - one.start_us;
  const list = document.createElement('ol');
  list.append(...[...listed].sort(order).slice(0, LISTED).map(entry));
  part.append(list);
  if (listed.length > LISTED) part.append(made('p', `${listed.length - LISTED} more are not listed`, 'faint'));
  return part;
}

function showLabels(counts) {
  const rows = [...counts]
    .sort(([one], [two]) => one.localeCompare(two))
    .map(([label, kinds]) => {
      const row = document.createElement('tr');
      const head = made('th', label);
      head.scope = 'row';
      row.append(head, ...KINDS.map((kind) => made('td', kinds[kind] ?? 0, 'number')));
      return row;
    });
  if (!rows.length) {
    const none = document.createElement('tr');
    none.append(Object.assign(made('td', 'no event with either'), { colSpan: 5 }));
    rows.push(none);
  }
  document.getElementById('labels').replaceChildren(...rows);
}

function hours(seconds) {
  return seconds < 3600 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function apart(total) {
  const found = [`The archive has ${hours(total.seconds)} of ${hours(total.asked)}`];
  if (total.other_model) found.push(`${hours(total.other_model)} of another model cannot be compared`);
  if (total.unreadable)
    found.push(`${many(total.unreadable, 'folder')} of it cannot be read: see 'ovavel archive check'`);
  found.push(`rounding may decide ${many(total.unsure, 'second')} differently from live watching`);
  found.push(
    `${total.unmatched} of ${many(total.recorded, 'recorded event')} had other settings or names then, or are not in the archive`,
  );
  if (total.left_out) found.push(`${many(total.left_out, 'event')} are counted above and not listed below`);
  return `${found.join('; ')}.`;
}

async function run() {
  const asked = { cameras: [form.dataset.camera], days: Number(form.elements.days.value), ...changed() };
  if (form.elements.fusion?.value) asked.fusion = form.elements.fusion.value;
  const stopped = new AbortController();
  running = stopped;
  cancel.onclick = () => stopped.abort();
  cancel.hidden = false;
  const [days, counts] = [new Map(), new Map()];
  const total = {
    asked: 0,
    seconds: 0,
    unsure: 0,
    recorded: 0,
    unmatched: 0,
    left_out: 0,
    other_model: 0,
    unreadable: 0,
  };
  say('');
  document.getElementById('found').hidden = true;
  document.getElementById('previewed').replaceChildren();
  progress.textContent = 'deciding on the newest day…';
  const problem = await question('preview', asked, stopped.signal, (found) => {
    for (const name of ['seconds', 'unsure', 'recorded', 'unmatched', 'left_out']) total[name] += found[name];
    [total.asked, total.other_model, total.unreadable] = [found.asked_s, found.other_model, found.unreadable];
    for (const [label, kinds] of Object.entries(found.counts)) {
      const known = counts.get(label) ?? {};
      for (const [kind, count] of Object.entries(kinds)) known[kind] = (known[kind] ?? 0) + count;
      counts.set(label, known);
    }
    const fresh = new Set();
    for (const each of found.differences) {
      const day = dayOf(each.start_us);
      days.set(day, [...(days.get(day) ?? []), each]);
      fresh.add(day);
    }
    for (const day of [...fresh].sort().reverse()) {
      const part = section(day, days.get(day));
      const place = document.getElementById('previewed');
      const old = [...place.children].find((one) => one.getAttribute('aria-label') === day);
      if (old) old.replaceWith(part);
      else place.append(part);
    }
    showLabels(counts);
    document.getElementById('apart').textContent = apart(total);
    document.getElementById('found').hidden = false;
    progress.textContent = `${found.done} of ${found.days} days decided on, ${hours(total.seconds)}`;
  });
  if (running !== stopped) return; // another one was started meanwhile
  cancel.hidden = true;
  if (stopped.signal.aborted) progress.textContent += ' – cancelled';
  else if (problem) {
    progress.textContent = '';
    say(problem);
  }
}

form?.addEventListener('submit', (submitted) => {
  submitted.preventDefault();
  cancel.click(); // of one that runs
  run();
});
form?.addEventListener('input', (typed) => {
  const { name, value, dataset } = typed.target;
  if (dataset.number) form.elements[dataset.number].value = value;
  else if (form.querySelector(`[data-number="${name}"]`)) form.querySelector(`[data-number="${name}"]`).value = value;
  showSpan();
  showLines();
});
form?.addEventListener('reset', () =>
  setTimeout(() => {
    showSpan();
    showLines();
  }),
); // once the values are back
document.getElementById('copy')?.addEventListener('click', async () => {
  const lines = document.getElementById('toml');
  const copied = document.getElementById('copied');
  try {
    await navigator.clipboard.writeText(`${lines.textContent}\n`);
    copied.textContent = 'copied';
  } catch {
    window.getSelection().selectAllChildren(lines); // without HTTPS a browser lets no page copy
    copied.textContent = 'marked: copy it with the keyboard';
  }
});
if (form) {
  showSpan(); // a browser may have kept what was typed
  showLines();
}
