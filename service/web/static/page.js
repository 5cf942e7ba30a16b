const base = document.body.dataset.base;
const page = document.body.dataset.page;
const link = document.getElementById('link');

function cell(text, title) {
  const made = document.createElement('td');
  made.textContent = text;
  made.title = title;
  return made;
}

function best(names) {
  return names.map((each) => `${each.label} ${each.value.toFixed(2)}`).join('\n');
}

// Neighbouring seconds that say the same are one wide cell, so that the name can be read.
function fill(row, seconds, text, title) {
  const cells = [];
  for (const second of seconds) {
    const last = cells.at(-1);
    if (last?.textContent === text(second)) last.colSpan += 1;
    else cells.push(cell(text(second), ''));
    cells.at(-1).title = title(second);
  }
  row.replaceChildren(row.querySelector('th'), ...cells);
}

function showCamera(camera) {
  const place = document.querySelector(`[data-camera="${CSS.escape(camera.id)}"]`);
  if (!place) return;
  const state = place.querySelector('.state');
  state.textContent = camera.state;
  state.dataset.state = camera.state;
  place.querySelector('.why').textContent = camera.why;
  const { seconds } = camera;
  for (const sense of ['seen', 'heard']) {
    fill(
      place.querySelector(`.${sense}`),
      seconds,
      (second) => second[sense][0]?.label ?? '–',
      (second) => best(second[sense]),
    );
  }
  fill(
    place.querySelector('.both'),
    seconds,
    (second) => (second.margin > 0 ? second.label : '·'),
    (second) => `margin ${second.margin.toFixed(2)}`,
  );
  const picture = place.querySelector('img');
  const wanted = `${base}api/v1/cameras/${encodeURIComponent(camera.id)}/snapshot.webp`;
  if (camera.state === 'watching' && picture.complete) picture.src = `${wanted}?${Date.now()}`;
}

function shown(time, zones, camera) {
  const timeZone = JSON.parse(zones)[camera] ?? 'UTC';
  const parts = { dateStyle: 'short', timeStyle: 'medium', timeZone };
  const zone = new Intl.DateTimeFormat('en', { timeZone, timeZoneName: 'short' }).formatToParts(time);
  const name = zone.find((each) => each.type === 'timeZoneName').value;
  return `${new Intl.DateTimeFormat('sv', parts).format(time)} ${name}`;
}

function showEvent(event) {
  const table = document.querySelector('.events tbody');
  if (!table) return;
  const seconds = ((event.end_us - event.start_us) / 1e6).toFixed(0);
  const begin = new Date(event.start_us / 1000);
  const row = document.createElement('tr');
  row.dataset.event = event.id;
  const why = event.end_cause ? ` (${event.end_cause})` : '';
  for (const text of [
    shown(begin, table.closest('table').dataset.zones, event.camera),
    seconds,
    event.camera,
    event.label,
    event.peak_margin.toFixed(2),
    event.state + why,
  ]) {
    row.append(cell(text, ''));
  }
  const known = table.querySelector(`[data-event="${CSS.escape(event.id)}"]`);
  if (known) known.replaceWith(row);
  else table.prepend(row);
}

const news = new EventSource(`${base}api/v1/stream`);
news.onopen = () => {
  link.textContent = 'live';
};
news.onerror = () => {
  link.textContent = 'connection lost; trying again';
};
if (page === 'now') {
  news.addEventListener('now', (message) => {
    for (const camera of JSON.parse(message.data)) showCamera(camera);
  });
}
if (page === 'events' && !location.search) {
  news.addEventListener('event', (message) => showEvent(JSON.parse(message.data).body));
  news.addEventListener('resync', () => location.reload());
}
