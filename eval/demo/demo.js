// Lets the table and the lanes follow the clip; names come from the table, as text.

const video = document.querySelector('video'),
  head = document.getElementById('head');
const lanes = document.getElementById('lanes'),
  rows = [...document.querySelectorAll('tr[data-start]')];
const [LEFT, RIGHT] = [lanes.dataset.left, lanes.dataset.right].map(Number),
  END = Number(lanes.dataset.end);
const show = (id, cell) => document.getElementById(id).replaceChildren(...cell.cloneNode(true).childNodes);
function follow() {
  const now = Math.min(video.currentTime, END),
    x = LEFT + (now / END) * (RIGHT - LEFT);
  head.setAttribute('x1', x);
  head.setAttribute('x2', x);
  const row = rows.findLast((r) => Number(r.dataset.start) <= now);
  for (const r of rows) r.classList.toggle('on', r === row);
  if (row) {
    show('truth', row.cells[2]);
    show('reported', row.cells[3]);
  }
  if (!video.paused) requestAnimationFrame(follow);
}
function seek(to) {
  video.currentTime = Math.max(0, Math.min(to, END - 0.05));
  follow();
}
for (const name of ['play', 'seeked', 'loadedmetadata']) video.addEventListener(name, follow);
video.addEventListener('error', () => {
  const sorry = document.createElement('p');
  sorry.className = 'dim';
  sorry.textContent = 'This browser cannot play the clip.';
  video.replaceWith(sorry);
});
lanes.addEventListener('click', (e) => {
  const box = lanes.getBoundingClientRect(),
    x = ((e.clientX - box.left) / box.width) * Number(lanes.dataset.width);
  seek(((x - LEFT) / (RIGHT - LEFT)) * END);
});
rows.forEach((row) => {
  const go = () => seek(Number(row.dataset.start));
  row.addEventListener('click', go);
  row.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' || e.key === ' ') {
      e.preventDefault();
      go();
    }
  });
});
follow();
