/**
 * Data of a view: read when the view opens and what it depends on changes, when the server says that it changed, and from
 * time to time. The old data stays visible while new data is on its way and when it does not come.
 */
import { untrack } from 'svelte';
import { failureOf, isAbort, type Failure } from './api/failure';
import { live, type Topic } from './live.svelte';

interface Options {
  /** Read again when one of these changed. */
  on?: readonly Topic[];
  /** Read again after so long; 0: never. */
  everyMs?: number;
}

export class Resource<T> {
  data = $state.raw<T | undefined>(undefined);
  failure = $state.raw<Failure | undefined>(undefined);
  loading = $state(false);
  /** When the data was read; 0: not yet. */
  at = $state(0);
  private abort: AbortController | null = null;
  private again = false;

  constructor(private readonly fetcher: (signal: AbortSignal) => Promise<T> | null) {}

  /** Reads now; what is on its way is dropped. */
  load(): void {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    // Called here, so that an effect around it notices what the fetcher depends on.
    const answer = this.fetcher(abort.signal);
    untrack(() => void this.settle(answer, abort));
  }

  /** Reads soon: what is on its way may finish first. */
  refresh(): void {
    if (this.loading) this.again = true;
    else untrack(() => this.load());
  }

  /** Forgets the data: what comes belongs to another question. */
  clear(): void {
    this.data = undefined;
    this.failure = undefined;
    this.at = 0;
  }

  stop(): void {
    this.abort?.abort();
    this.abort = null;
    this.again = false;
  }

  private async settle(answer: Promise<T> | null, abort: AbortController): Promise<void> {
    if (!answer) {
      this.loading = false;
      return;
    }
    this.loading = true;
    try {
      const data = await answer;
      if (this.abort !== abort) return;
      this.data = data;
      this.failure = undefined;
      this.at = Date.now();
    } catch (error) {
      if (this.abort !== abort || isAbort(error)) return;
      this.failure = failureOf(error);
    }
    this.loading = false;
    if (this.again) {
      this.again = false;
      this.load();
    }
  }
}

/** To be called while a component is made; ends with it. The fetcher may return null: nothing to ask now. */
export function resource<T>(fetcher: (signal: AbortSignal) => Promise<T> | null, { on = [], everyMs = 0 }: Options = {}): Resource<T> {
  const made = new Resource(fetcher);
  $effect(() => {
    made.load();
    return () => made.stop();
  });
  $effect(() => live.on(on, () => made.refresh()));
  $effect(() => {
    if (everyMs === 0) return;
    const timer = setInterval(() => document.hidden || made.refresh(), everyMs);
    return () => clearInterval(timer);
  });
  return made;
}
