import { base, follow } from './page.js';

function cell(text, title) {
  const made = document.createElement('td');
  made.textContent = text;
  made.title = title;
  return made;
}

function best(names) {
  return names.map((each) => `${each.label} ${each.value.toFixed(2)}`).join('\n');
}

// Not looked at, by choice, is not the same as not there.
function notLooked(sense, second) {
  return sense === 'seen' && second.skipped;
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
  place.querySelector('.losses').textContent = camera.lost;
  const { seconds } = camera;
  for (const sense of ['seen', 'heard']) {
    fill(
      place.querySelector(`.${sense}`),
      seconds,
      (second) => second[sense][0]?.label ?? (notLooked(sense, second) ? '·' : '–'),
      (second) => (notLooked(sense, second) ? `not looked at: ${second.skipped}` : best(second[sense])),
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

follow({
  now: (cameras) => {
    for (const camera of cameras) showCamera(camera);
  },
});
