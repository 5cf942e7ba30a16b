// What a name that is looked at would have found on the last day.

import { question } from './archive.js';
import { base } from './page.js';

const place = document.querySelector('[data-preview]');
const DAY_US = 86_400_000_000;

async function preview() {
  const name = place.dataset.preview;
  let hits = [];
  let seconds = 0;
  const asked = { phrases: [name], from_us: Date.now() * 1000 - DAY_US, limit: 200 };
  const problem = await question('search', asked, undefined, (found) => {
    if (found.last) hits = found.hits.filter((hit) => hit.event);
    seconds = found.seconds;
  });
  if (problem) {
    place.textContent = `This cannot be shown: ${problem}`;
    return;
  }
  const hours = (seconds / 3600).toFixed(1);
  const events = hits.length === 1 ? 'event' : 'events';
  place.textContent = `${hits.length} ${events} on the last day, of which the archive has ${hours} hours of cameras.`;
  const list = document.createElement('ul');
  for (const hit of hits.sort((one, two) => two.peak_us - one.peak_us).slice(0, 20)) {
    const entry = document.createElement('li');
    const length = ((hit.end_us - hit.start_us) / 1e6).toFixed(0);
    entry.textContent = `${new Date(hit.start_us / 1000).toLocaleString()}, ${hit.camera}, ${length} s, margin ${hit.margin.toFixed(2)} `;
    if (hit.event_id) {
      const link = document.createElement('a');
      link.href = `${base}events/${hit.event_id}`;
      link.textContent = 'what is kept of it';
      entry.append(link);
    }
    list.append(entry);
  }
  place.after(list);
}

if (place) preview();
