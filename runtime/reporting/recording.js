// Draws the scores of a recording from the JSON of #data; names are set as text only, never as markup.

const data = JSON.parse(document.getElementById('data').textContent);
const by = (id) => document.getElementById(id);
const track = by('track'),
  heat = by('heat'),
  mark = by('mark'),
  tip = by('tip'),
  strip = by('strip');
const bins = data.bins,
  rows = data.rows,
  ROW = 24,
  AXIS = 22;
let cell = 1;
const clock = (s) => {
  const t = Math.round(s * 10),
    w = Math.floor(t / 10),
    two = (v) => String(v).padStart(2, '0');
  const h = Math.floor(w / 3600),
    f = t % 10 ? `.${t % 10}` : '';
  return `${(h ? `${h}:` : '') + two(Math.floor(w / 60) % 60)}:${two(w % 60)}${f}`;
};
function draw() {
  cell = Math.min(40, Math.max(track.clientWidth / bins, bins > 1800 ? 2 : 4));
  const width = Math.max(1, Math.floor(bins * cell)),
    height = rows.length * ROW + AXIS;
  const ratio = width * devicePixelRatio < 16000 ? devicePixelRatio : 1;
  heat.width = width * ratio;
  heat.height = height * ratio;
  heat.style.width = `${width}px`;
  heat.style.height = `${height}px`;
  const c = heat.getContext('2d'),
    ink = getComputedStyle(document.body);
  c.scale(ratio, ratio);
  rows.forEach((row, r) => {
    for (let i = 0; i < bins; i++) {
      const x = i * cell,
        y = r * ROW,
        w = Math.max(1, cell > 6 ? cell - 1 : cell + 0.5);
      if (row.score[i] === null) {
        c.globalAlpha = 0.25;
        c.strokeStyle = ink.color;
        c.lineWidth = 1;
        c.beginPath();
        c.moveTo(x, y + ROW - 2);
        c.lineTo(x + w, y + 1);
        c.stroke();
        continue;
      }
      c.globalAlpha = 0.05 + 0.95 * (Math.max(0, row.score[i]) / 1000) ** 2;
      c.fillStyle = row.colour;
      c.fillRect(x, y + 1, w, ROW - 2);
    }
  });
  c.globalAlpha = 0.7;
  c.fillStyle = ink.color;
  c.font = '11px system-ui';
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((s) => (s / data.bin_s) * cell >= 64) || 1800;
  for (let s = 0; s < bins * data.bin_s; s += step) {
    const x = (s / data.bin_s) * cell;
    c.fillRect(x, rows.length * ROW, 1, 5);
    c.fillText(clock(s), x + 3, rows.length * ROW + 15);
  }
  pictures();
}
function pictures() {
  strip.replaceChildren();
  const seconds = Object.keys(data.thumbnails)
    .map(Number)
    .sort((a, b) => a - b);
  const px = cell / data.bin_s;
  let until = 0;
  const chosen = seconds.filter((s) => {
    const fits = s * px >= until - 0.5;
    if (fits) until = s * px + Math.max(px, 74);
    return fits;
  });
  chosen.forEach((s, n) => {
    const image = new Image(),
      end = bins * cell,
      next = n + 1 < chosen.length ? chosen[n + 1] * px : end;
    image.src = data.thumbnails[s];
    image.alt = `picture at ${clock(s)}`;
    image.style.left = `${s * px}px`;
    image.style.width = `${Math.min(104, next - s * px) - 2}px`;
    strip.append(image);
  });
  strip.hidden = !seconds.length;
}
function line(text, bold) {
  const p = document.createElement(bold ? 'b' : 'div');
  p.textContent = text;
  tip.append(p);
}
heat.addEventListener('pointermove', (e) => {
  const box = heat.getBoundingClientRect();
  const i = Math.floor((e.clientX - box.left) / cell),
    r = Math.floor((e.clientY - box.top) / ROW);
  const row = rows[r];
  if (!row || i < 0 || i >= bins) {
    tip.style.display = 'none';
    return;
  }
  tip.replaceChildren();
  let nearest = null;
  for (const s of Object.keys(data.thumbnails).map(Number))
    if (nearest === null || Math.abs(s - i * data.bin_s) < Math.abs(nearest - i * data.bin_s)) nearest = s;
  if (nearest !== null && Math.abs(nearest - i * data.bin_s) <= data.thumbnail_step_s) {
    const image = new Image();
    image.src = data.thumbnails[nearest];
    tip.append(image);
  }
  const value = (v) => (v === null ? 'missing' : (v / 1000).toFixed(3));
  line(row.label, true);
  line(`${clock(i * data.bin_s)} – ${clock((i + 1) * data.bin_s)}${data.bin_s > 1 ? ', best of each' : ''}`);
  line(row.score[i] === null ? 'no score: a sense is missing' : `score ${value(row.score[i])}`);
  // Where a sense is missing there is no score.
  const seen = row.seen[i] === null && row.score[i] !== null ? 'not looked at' : value(row.seen[i]);
  line(`seen ${seen}   heard ${value(row.heard[i])}`);
  tip.style.display = 'block';
  tip.style.left = `${Math.min(e.clientX + 16, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(8, Math.min(e.clientY + 16, innerHeight - tip.offsetHeight - 8))}px`;
});
heat.addEventListener('pointerleave', () => {
  tip.style.display = 'none';
});
let chosen = null;
function choose(id) {
  const event = data.events.find((e) => e.id === id);
  if (!event) return;
  chosen = event;
  for (const tr of document.querySelectorAll('#events tr')) tr.classList.toggle('on', tr.dataset.event === String(id));
  const px = cell / data.bin_s;
  mark.style.display = 'block';
  mark.style.left = `${event.start_s * px}px`;
  mark.style.width = `${Math.max(4, (event.end_s - event.start_s) * px)}px`;
  track.scrollTo({ left: event.start_s * px - track.clientWidth / 3, behavior: 'smooth' });
}
document.querySelectorAll('[data-event]').forEach((element) => {
  const id = Number(element.dataset.event);
  element.addEventListener('click', () => {
    choose(id);
    by('scores').scrollIntoView({ block: 'nearest' });
  });
  element.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      choose(id);
    }
  });
});
addEventListener('resize', () => {
  draw();
  if (chosen) choose(chosen.id);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
draw();
