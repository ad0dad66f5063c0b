/**
 * Server-sent events over `fetch`. Unlike `EventSource`, a refusal can be read: its status, its message, its id.
 *
 * [`SseParser`] is pure; [`follow`] connects, reconnects with the last id it saw, and ends with its signal.
 */
import { ApiError, failureOf, type Failure } from './api/failure';

export interface SseEvent {
  id: string;
  event: string;
  data: string;
}

/** The parser of the specification, fed with text in pieces of any size. */
export class SseParser {
  private rest = '';
  private data: string[] = [];
  private event = '';
  private id = '';
  private started = false;

  push(chunk: string): SseEvent[] {
    let text = this.rest + chunk;
    if (!this.started && text.length > 0) {
      this.started = true;
      if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
    }
    const found: SseEvent[] = [];
    for (;;) {
      const end = text.search(/[\r\n]/);
      if (end < 0) break;
      // A lone CR at the end may be the first half of CRLF.
      if (text[end] === '\r' && end === text.length - 1) break;
      const line = text.slice(0, end);
      text = text.slice(end + (text[end] === '\r' && text[end + 1] === '\n' ? 2 : 1));
      const done = this.line(line);
      if (done) found.push(done);
    }
    this.rest = text;
    return found;
  }

  private line(line: string): SseEvent | null {
    if (line === '') {
      const event = { id: this.id, event: this.event || 'message', data: this.data.join('\n') };
      const any = this.data.length > 0;
      this.data = [];
      this.event = '';
      return any ? event : null;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') this.data.push(value);
    else if (field === 'event') this.event = value;
    else if (field === 'id' && !value.includes('\0')) this.id = value;
    return null;
  }
}

export interface Follow {
  event(event: SseEvent): void;
  /** Connected; the first time and after each break. */
  open?(): void;
  /** Cut off, or refused for a reason that may pass; it is tried again. */
  broken?(failure: Failure): void;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/** Milliseconds before the next attempt: doubling, with some randomness so that many pages do not come at once. */
export function pause(attempt: number, random = Math.random()): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** Math.min(attempt, 10), LONGEST_PAUSE_MS) * (0.75 + random / 2);
}

/** Refusals that another attempt cannot mend. */
function isFinal(failure: Failure): boolean {
  return failure.status >= 400 && failure.status < 500 && failure.status !== 429 && failure.status !== 408;
}

/**
 * Follows a stream until the signal, the end that `event` asks for by aborting, or a refusal that is final (it is thrown).
 * `url` is asked for anew at each attempt, with the id of the last event.
 */
export async function follow(url: (lastId: string) => string, handlers: Follow, signal: AbortSignal): Promise<void> {
  let attempt = 0;
  let lastId = '';
  while (!signal.aborted) {
    try {
      const response = await fetch(url(lastId), { headers: { accept: 'text/event-stream' }, signal });
      if (!response.ok || !response.body) throw await ApiError.from(response);
      handlers.open?.();
      attempt = 0;
      await read(response.body, signal, (event) => {
        if (event.id) lastId = event.id;
        handlers.event(event);
      });
      if (!signal.aborted) handlers.broken?.(failureOf(new TypeError('the stream ended')));
    } catch (error) {
      if (signal.aborted) return;
      const failure = failureOf(error);
      if (isFinal(failure)) throw error;
      handlers.broken?.(failure);
    }
    await wait(pause(attempt++), signal);
  }
}

async function read(body: ReadableStream<Uint8Array>, signal: AbortSignal, event: (event: SseEvent) => void): Promise<void> {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const one of parser.push(decoder.decode(value, { stream: true }))) {
      if (signal.aborted) return;
      event(one);
    }
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done);
  });
}
