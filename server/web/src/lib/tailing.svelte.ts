/** Follows a log query. */
import { failureOf, type Failure } from './api/failure';
import { tailAddress, type Entry } from './api/logs';
import { unauthenticated } from './api/client';
import { follow, type SseEvent } from './sse';
import { TailBuffer, type Row } from './tail';

export class Tailing {
  rows = $state.raw<Row[]>([]);
  waiting = $state(0);
  paused = $state(false);
  cut = $state(false);
  state = $state<'connecting' | 'on' | 'broken'>('connecting');
  /** The query was refused; another attempt would be, too. */
  failure = $state.raw<Failure | undefined>(undefined);
  private buffer = new TailBuffer();
  private frame = 0;

  constructor(query: string, signal: AbortSignal) {
    const handlers = {
      open: () => (this.state = 'on'),
      broken: () => (this.state = 'broken'),
      event: (event: SseEvent) => this.event(event),
    };
    follow(() => tailAddress(query), handlers, signal).catch((error: unknown) => {
      this.failure = failureOf(error);
      if (this.failure.status === 401) unauthenticated();
    });
  }

  pause(): void {
    this.buffer.pause();
    this.show();
  }

  resume(): void {
    this.buffer.resume();
    this.show();
  }

  private event({ event, data }: SseEvent): void {
    if (event === 'entries') this.buffer.add(JSON.parse(data) as Entry[]);
    else if (event === 'gap') this.buffer.addGap((JSON.parse(data) as { dropped: number }).dropped);
    else return;
    // However many events come, the page is drawn once a frame. A hidden page has no frames; it is drawn when it is seen.
    this.frame ||= requestAnimationFrame(() => this.show());
  }

  private show(): void {
    this.frame = 0;
    this.rows = this.buffer.rows;
    this.waiting = this.buffer.waiting.length;
    this.paused = this.buffer.paused;
    this.cut = this.buffer.cut;
  }
}
