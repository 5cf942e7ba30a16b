import { ask, base, follow, refresh } from './page.js';

const one = () => document.getElementById('event'); // where this is the page of one event
const PAUSE_MS = 1000;
let chosen = null;

const rows = () => [...document.querySelectorAll('#events .event')];
const row = (id) => document.querySelector(`#events [data-event="${CSS.escape(id)}"]`);

function choose(next) {
  if (!next) return;
  row(chosen ?? '')?.classList.remove('chosen');
  chosen = next.dataset.event;
  next.classList.add('chosen');
  next.querySelector('a.label').focus({ preventScroll: true });
  next.scrollIntoView({ block: 'nearest' });
}

function step(by) {
  const all = rows();
  const at = all.findIndex((each) => each.dataset.event === chosen);
  choose(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)]);
}

// Whoever has marked or chosen events keeps that when the list changes.
function keep(made) {
  const marked = new Set(marks());
  for (const each of made.querySelectorAll('.event')) {
    const box = each.querySelector('input[type="checkbox"]');
    if (box) box.checked = marked.has(each.dataset.event);
    each.classList.toggle('chosen', each.dataset.event === chosen);
  }
}

const marks = () =>
  rows()
    .filter((each) => each.querySelector('input[type="checkbox"]:checked'))
    .map((each) => each.dataset.event);

function showMarks() {
  const output = document.getElementById('marked');
  if (output) output.textContent = marks().length ? `${marks().length} marked` : '';
}

async function show() {
  const focused = document.activeElement?.closest('#events .event')?.dataset.event;
  await refresh(one() ? ['event'] : ['timeline', 'count', 'events'], keep);
  if (focused) row(focused)?.querySelector('a.label').focus({ preventScroll: true });
  showMarks();
}

async function change(ids, name, text) {
  if (!ids.length) return;
  const value = text === 'true' ? true : text === 'false' ? false : text;
  const body = { [name]: value };
  const found = one()
    ? await ask(`events/${encodeURIComponent(ids[0])}`, 'PATCH', body)
    : await ask('events:bulk', 'POST', { ids, ...body });
  if (found) await show();
}

async function remove(ids) {
  const what = ids.length === 1 ? 'this event' : `${ids.length} events`;
  if (!ids.length || !window.confirm(`Delete ${what} with pictures and clip for good?`)) return;
  const found = one()
    ? await ask(`events/${encodeURIComponent(ids[0])}`, 'DELETE')
    : await ask('events:delete', 'POST', { ids });
  if (found && one()) location.assign(`${base}events`);
  else if (found) await show();
}

document.addEventListener('click', (clicked) => {
  const button = clicked.target.closest('#bulk button, #one button');
  if (!button) return;
  const ids = one() ? [one().dataset.event] : marks();
  if (button.name === 'delete') remove(ids);
  else change(ids, button.name, button.value);
});

document.addEventListener('change', (changed) => {
  if (changed.target.id === 'all') {
    for (const each of rows()) each.querySelector('input[type="checkbox"]').checked = changed.target.checked;
  }
  showMarks();
});

document.addEventListener('keydown', (pressed) => {
  const busy = pressed.target.closest('input:not([type="checkbox"]), select, textarea, button, video');
  if (busy || pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
  const may = document.querySelector('#bulk, #one');
  const current = one() ?? row(chosen ?? '');
  if (pressed.key === 'j') step(1);
  else if (pressed.key === 'k') step(-1);
  else if (pressed.key === ' ' && one()) {
    const clip = document.getElementById('clip');
    if (!clip) return;
    if (clip.paused) clip.play();
    else clip.pause();
  } else if (pressed.key === ' ' && current) current.querySelector('a.label').click();
  else if (pressed.key === 'r' && current && may) {
    change([current.dataset.event], 'reviewed', current.dataset.reviewed === 'true' ? 'false' : 'true');
  } else if (pressed.key === 'x' && current && may && !one()) {
    const box = current.querySelector('input[type="checkbox"]');
    box.checked = !box.checked;
    showMarks();
  } else return;
  pressed.preventDefault();
});

// News come each second while something happens; the list follows at most that often.
let waiting = false;
let shown_ms = 0;
function soon() {
  if (waiting) return;
  waiting = true;
  setTimeout(
    async () => {
      waiting = false;
      shown_ms = Date.now();
      await show();
    },
    Math.max(0, shown_ms + PAUSE_MS - Date.now()),
  );
}

const first = !new URLSearchParams(location.search).has('cursor');
follow({
  event: (entry) => {
    if (one() ? entry.body.id === one().dataset.event : first) soon();
  },
  deleted: ({ ids }) => {
    if (!one()) soon();
    else if (ids.includes(one().dataset.event)) location.assign(`${base}events`);
  },
  resync: () => soon(),
});
