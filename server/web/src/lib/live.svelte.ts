/**
 * What changed on the server, as it happens. One stream for the whole page; views say what they want to hear of.
 *
 * While the page is hidden the stream is closed: a browser allows few connections to one server, and many open pages must
 * not use them up. When the page is seen again, everything is read anew.
 */
import { own, unauthenticated } from './api/client';
import { failureOf } from './api/failure';
import { follow } from './sse';

export type Topic = 'hosts' | 'alerts' | 'deployments' | 'notifications';

type Listener = { topics: readonly Topic[]; heard: () => void };

class Live {
  state = $state<'off' | 'connecting' | 'on' | 'broken'>('off');
  private listeners = new Set<Listener>();
  private abort: AbortController | null = null;
  private wanted = false;

  constructor() {
    document.addEventListener('visibilitychange', () => (document.hidden ? this.close() : this.wanted && this.open()));
  }

  start(): void {
    this.wanted = true;
    if (!document.hidden) this.open();
  }

  stop(): void {
    this.wanted = false;
    this.close();
  }

  on(topics: readonly Topic[], heard: () => void): () => void {
    const listener = { topics, heard };
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private open(): void {
    if (this.abort) return;
    const abort = new AbortController();
    this.abort = abort;
    this.state = 'connecting';
    let first = true;
    const handlers = {
      open: () => {
        this.state = 'on';
        // What happened while there was no stream is unknown.
        if (!first) this.tellAll();
        first = false;
      },
      broken: () => (this.state = 'broken'),
      event: ({ event, data }: { event: string; data: string }) => {
        if (event === 'changed') this.tell(data);
      },
    };
    follow(() => own('/live'), handlers, abort.signal).catch((error: unknown) => {
      this.state = 'broken';
      if (failureOf(error).status === 401) unauthenticated();
    });
    if (this.seenBefore) this.tellAll();
    this.seenBefore = true;
  }

  private seenBefore = false;

  private close(): void {
    this.abort?.abort();
    this.abort = null;
    this.state = 'off';
  }

  private tell(data: string): void {
    let what: unknown;
    try {
      what = (JSON.parse(data) as { what?: unknown }).what;
    } catch {
      return;
    }
    for (const listener of [...this.listeners]) {
      if (listener.topics.some((topic) => topic === what)) listener.heard();
    }
  }

  private tellAll(): void {
    for (const listener of [...this.listeners]) listener.heard();
  }
}

export const live = new Live();
