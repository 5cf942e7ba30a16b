// What every page has: the stream of news, forms that ask the API, and messages.
export const base = document.body.dataset.base;
const page = document.body.dataset.page;
const link = document.getElementById('link');
const alertBox = document.getElementById('alert');

export function say(text, good = false) {
  alertBox.textContent = text;
  alertBox.classList.toggle('good', good);
  alertBox.hidden = !text;
}

// Asks the API; what it refuses is shown, and null returned.
export async function ask(path, method, value) {
  const options = { method, headers: { accept: 'application/json' } };
  if (value !== undefined) {
    options.headers['content-type'] = 'application/json';
    options.body = JSON.stringify(value);
  }
  try {
    const answer = await fetch(`${base}api/v1/${path}`, options);
    const text = await answer.text();
    if (answer.status === 401) location.reload();
    const found = text ? JSON.parse(text) : {};
    if (answer.ok) {
      say('');
      return found;
    }
    say(found.title ?? `refused (${answer.status})`);
  } catch (error) {
    say(`the service does not answer: ${error.message}`);
  }
  return null;
}

// Puts the newest state of parts of this page in place of what is shown.
export async function refresh(ids, prepare) {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
  for (const id of ids) {
    const [old, made] = [document.getElementById(id), fresh.getElementById(id)];
    if (!old || !made) continue;
    prepare?.(made);
    old.replaceWith(document.adoptNode(made));
  }
}

// A page in the background listens to nothing: a browser has six connections to a server, and with six open streams
// the seventh tab would wait for ever. Whoever comes back to it sees what is new at once.
export function follow(listen) {
  let news = null;
  const open = () => {
    news = new EventSource(`${base}api/v1/stream`);
    news.onopen = () => {
      link.textContent = 'live';
    };
    news.onerror = () => {
      link.textContent = 'connection lost; trying again';
    };
    for (const [name, heard] of Object.entries(listen)) {
      news.addEventListener(name, (message) => heard(JSON.parse(message.data)));
    }
  };
  const look = () => {
    if (document.hidden) {
      news?.close();
      news = null;
    } else if (!news) {
      open();
      listen.resync?.();
    }
  };
  document.addEventListener('visibilitychange', look);
  if (!document.hidden) open();
}

// <form data-api="users" data-method="POST">: its fields go to the API; [data-confirm] asks first, and [data-next] is
// the page that follows, if it is another one.
for (const form of document.querySelectorAll('form[data-api]')) {
  form.addEventListener('submit', async (submitted) => {
    submitted.preventDefault();
    const { api, method, confirm: question, done, next } = form.dataset;
    if (question && !window.confirm(question)) return;
    const fields = Object.fromEntries(new FormData(form));
    const button = form.querySelector('button');
    button.disabled = true; // what takes long is not sent twice
    const found = await ask(api, method, method === 'DELETE' ? undefined : fields);
    button.disabled = false;
    if (!found) return;
    const shown = form.querySelector('output');
    if (shown && found.token) {
      shown.textContent = found.token;
    } else if (done === 'say') {
      const fine = found.ok ?? found.delivered ?? true;
      say(found.text ?? (fine ? 'delivered' : found.why), fine);
    } else if (next) {
      location.assign(base + next);
    } else {
      location.reload();
    }
  });
}

if (link && page !== 'now' && page !== 'events' && page !== 'event') follow({});
