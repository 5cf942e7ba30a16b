// The page Search: what is found is shown while the rest is searched.

import { question } from './archive.js';
import { base, say } from './page.js';

const form = document.getElementById('search');
const cancel = document.getElementById('cancel');
const progress = document.getElementById('progress');
const names = new Map([...(form?.elements.camera.options ?? [])].map((each) => [each.value, each.textContent]));
const DAY_US = 86_400_000_000;

let running = null;

function cell(row, text) {
  const made = row.insertCell();
  made.textContent = text;
  return made;
}

function number(value) {
  return value === null ? '–' : value.toFixed(2);
}

// The picture of an event, where there is one, leads to it.
function kept(hit) {
  const made = document.createElement('a');
  made.href = `${base}events/${hit.event_id}`;
  const picture = document.createElement('img');
  Object.assign(picture, { loading: 'lazy', width: 96, alt: 'an event at that time' });
  picture.src = `${base}api/v1/events/${hit.event_id}/snapshot.webp`;
  picture.addEventListener('error', () => picture.replaceWith('an event'));
  made.append(picture);
  return made;
}

function judged(hit) {
  if (!hit.event) return `no: ${hit.label}`;
  return hit.probability === null ? 'yes' : `yes, ${hit.probability.toFixed(2)}`;
}

function show(hits) {
  const rows = hits.map((hit) => {
    const row = document.createElement('tr');
    cell(row, new Date(hit.peak_us / 1000).toLocaleString());
    cell(row, names.get(hit.camera) ?? hit.camera);
    cell(row, ((hit.end_us - hit.start_us) / 1e6).toFixed(0)).className = 'number';
    cell(row, hit.score.toFixed(3)).className = 'number';
    cell(row, number(hit.seen)).className = 'number';
    cell(row, number(hit.heard)).className = 'number';
    cell(row, judged(hit));
    const last = cell(row, hit.event_id ? '' : '–');
    if (hit.event_id) last.append(kept(hit));
    if (hit.score <= 0) row.className = 'faint'; // the background fits better
    return row;
  });
  document.getElementById('hits').replaceChildren(...rows);
  document.getElementById('found').hidden = !hits.length;
  showDays(hits);
}

// Hits by day of the reader's own calendar, the newest on the right.
function showDays(hits) {
  const counts = new Map();
  for (const hit of hits.filter((each) => each.score > 0)) {
    const day = new Date(hit.peak_us / 1000).toLocaleDateString('sv');
    counts.set(day, (counts.get(day) ?? 0) + 1);
  }
  const most = Math.max(1, ...counts.values());
  const bars = [...counts].sort().map(([day, count]) => {
    const bar = document.createElement('div');
    bar.className = 'bar';
    bar.title = `${day}: ${count}`;
    const column = document.createElement('meter');
    Object.assign(column, { max: most, value: count });
    const label = document.createElement('span');
    label.textContent = `${day.slice(5)}: ${count}`;
    bar.append(column, label);
    return bar;
  });
  document.getElementById('days').replaceChildren(...bars);
}

function better(before, more, limit) {
  const known = new Map();
  for (const hit of [...before, ...more]) known.set(`${hit.camera} ${hit.start_us} ${hit.end_us}`, hit);
  return [...known.values()].sort((one, two) => two.score - one.score).slice(0, limit);
}

async function run() {
  const fields = Object.fromEntries(new FormData(form));
  const asked = { phrases: [fields.phrase], evidence: fields.evidence, limit: 50 };
  if (fields.without) asked.without = [fields.without];
  if (fields.camera) asked.cameras = [fields.camera];
  if (fields.days) asked.from_us = Date.now() * 1000 - Number(fields.days) * DAY_US;
  const name = document.getElementById('name');
  if (name) name.href = `${base}words?name=${encodeURIComponent(fields.phrase)}#add`;
  const stopped = new AbortController();
  running = stopped;
  cancel.onclick = () => stopped.abort();
  cancel.hidden = false;
  let hits = [];
  show(hits);
  say('');
  progress.textContent = 'searching…';
  const problem = await question('search', asked, stopped.signal, (found) => {
    hits = found.last ? found.hits : better(hits, found.hits, asked.limit);
    show(hits);
    const note = document.getElementById('note');
    note.textContent = found.note;
    note.hidden = !found.note;
    const hours = (found.seconds / 3600).toFixed(1);
    const fit = hits.filter((hit) => hit.score > 0).length;
    const days = `${found.done} of ${found.days} days of cameras`;
    progress.textContent = `${fit} fit better than the background; ${hours} hours searched, ${days}`;
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
  cancel.click(); // of a search that runs
  run();
});
if (form?.elements.phrase.value) run();
