// Asks the archive, at "search" or "preview". `heard` gets each answer; what is returned is why it ended early, if it did.
import { base } from './page.js';

export async function question(path, asked, signal, heard) {
  try {
    const answer = await fetch(`${base}api/v1/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify(asked),
      signal,
    });
    if (answer.status === 401) location.reload();
    if (!answer.ok) return (await answer.json()).title ?? `refused (${answer.status})`;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return 'the service ended it early; try again';
      text += value;
      const messages = text.split('\n\n');
      text = messages.pop();
      for (const message of messages) {
        const [kind, data] = message.split('\n').map((line) => line.slice(line.indexOf(': ') + 2));
        if (kind === 'problem') return JSON.parse(data).title;
        if (kind === 'end') return '';
        heard(JSON.parse(data));
      }
    }
  } catch (error) {
    return signal?.aborted ? '' : `the service does not answer: ${error.message}`;
  }
}
