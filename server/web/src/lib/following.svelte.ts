/** Follows the events of a deployment to its end. */
import { unauthenticated } from './api/client';
import { eventsAddress, type DeploymentEvent, type HostProgressState } from './api/deployments';
import { failureOf, type Failure } from './api/failure';
import { follow, type SseEvent } from './sse';

/** Most events that are kept. */
const MOST_EVENTS = 6000;

export class Following {
  events = $state.raw<DeploymentEvent[]>([]);
  state = $state<'connecting' | 'on' | 'broken' | 'ended'>('connecting');
  cut = $state(false);
  failure = $state.raw<Failure | undefined>(undefined);
  /** The last state of each host that the stream told. */
  hosts = $state.raw<Record<string, { state: HostProgressState; reason: string }>>({});
  private kept: DeploymentEvent[] = [];
  private last = 0;
  private frame = 0;
  private readonly abort = new AbortController();

  constructor(id: string, signal: AbortSignal) {
    signal.addEventListener('abort', () => this.abort.abort());
    const handlers = { open: () => (this.state = 'on'), broken: () => (this.state = 'broken'), event: (event: SseEvent) => this.event(event) };
    follow((lastId) => eventsAddress(id, lastId || '0'), handlers, this.abort.signal).catch((error: unknown) => {
      this.failure = failureOf(error);
      if (this.failure.status === 401) unauthenticated();
    });
  }

  private event({ event, data }: SseEvent): void {
    if (event === 'end') {
      this.state = 'ended';
      this.abort.abort();
      return;
    }
    if (event !== 'deployment') return;
    const parsed = JSON.parse(data) as DeploymentEvent;
    // After a break some may come twice.
    if (parsed.n <= this.last) return;
    this.last = parsed.n;
    this.kept.push(parsed);
    this.frame ||= requestAnimationFrame(() => this.show());
  }

  private show(): void {
    this.frame = 0;
    if (this.kept.length > MOST_EVENTS) {
      this.kept = this.kept.slice(-MOST_EVENTS);
      this.cut = true;
    }
    this.events = [...this.kept];
    const hosts: typeof this.hosts = {};
    for (const event of this.kept) if (event.kind === 'state') hosts[event.host] = { state: event.state, reason: event.reason };
    this.hosts = { ...this.hosts, ...hosts };
  }
}
