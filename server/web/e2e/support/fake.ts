/**
 * A server that speaks `docs/api.md` from canned data and serves the built dashboard with the real server's headers.
 * Tests change `world`, `broken` and push into its streams.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { instant, range } from './promql';
import { world, type World } from './data';

const DIST = join(import.meta.dirname, '../../dist');
const OWN = '/shipwatch/api/v1';
export const PASSWORD = 'correct horse battery';

/** As `harden` in `server/src/api.rs` says. */
const HEADERS = {
  'content-security-policy': "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
};
const TYPES: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };

interface Refusal {
  status: number;
  message?: string;
  headers?: Record<string, string>;
  /** For so many requests; without, until it is taken away. */
  times?: number;
}

export class FakeServer {
  world: World = world(Date.now());
  /** By the beginning of `METHOD path`. */
  broken = new Map<string, Refusal>();
  sessionValid = true;
  requests: { method: string; path: string; search: URLSearchParams; body: string }[] = [];
  private streams = new Map<string, Set<ServerResponse>>();
  private server: Server = createServer((request, response) => void this.answer(request, response));

  static async start(): Promise<FakeServer> {
    const fake = new FakeServer();
    await readFile(join(DIST, 'index.html')).catch(() => {
      throw new Error('the dashboard is not built: run `npm run build` (or `make web`) first');
    });
    await new Promise<void>((resolve) => fake.server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  reset(): void {
    this.world = world(Date.now());
    this.broken.clear();
    this.sessionValid = true;
    this.requests = [];
    this.cut();
  }

  /** How many read a stream. */
  readers(path: string): number {
    return this.streams.get(path)?.size ?? 0;
  }

  push(path: string, event: string, data: unknown, id?: number): void {
    for (const stream of this.streams.get(path) ?? []) stream.write(`${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  changed(what: string): void {
    this.push('/live', 'changed', { what, id: '' });
  }

  /** Ends all streams, as a restart does. */
  cut(): void {
    for (const all of this.streams.values()) for (const stream of all) stream.destroy();
    this.streams.clear();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://fake');
    let body = '';
    for await (const chunk of request) body += String(chunk);
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    if (!url.pathname.startsWith('/shipwatch/') && !url.pathname.startsWith('/api/') && !url.pathname.startsWith('/-/')) return this.file(url.pathname, response);
    const method = request.method ?? 'GET';
    const path = url.pathname.startsWith(OWN) ? url.pathname.slice(OWN.length) : url.pathname;
    this.requests.push({ method, path, search: url.searchParams, body });
    for (const [prefix, refusal] of this.broken) {
      if (!`${method} ${path}`.startsWith(prefix)) continue;
      if (refusal.times !== undefined && --refusal.times < 0) continue;
      return refuse(response, refusal.status, refusal.message ?? 'made to fail by the test', refusal.headers);
    }
    const signedIn = this.sessionValid && (request.headers.cookie ?? '').includes('shipwatch_session=fake');
    if (!signedIn && !(path === '/session' && method === 'POST')) return refuse(response, 401, 'sign in, or send an API token');
    try {
      this.route(method, path, url.searchParams, body, response);
    } catch (error) {
      refuse(response, 500, String(error));
    }
  }

  private route(method: string, path: string, search: URLSearchParams, body: string, response: ServerResponse): void {
    const { world } = this;
    const form = new URLSearchParams(body);
    const parts = path.split('/').slice(1).map(decodeURIComponent);
    const found = <T>(one: T | undefined): void => (one ? json(response, one) : refuse(response, 404, 'not found'));
    switch (`${method} ${parts[0]}`) {
      case 'POST session': {
        const given = JSON.parse(body) as { user: string; password: string };
        if (given.password !== PASSWORD) return refuse(response, 401, 'the name or the password is wrong');
        this.sessionValid = true;
        response.setHeader('set-cookie', 'shipwatch_session=fake; Path=/; HttpOnly; SameSite=Strict');
        return json(response, { user: given.user, role: 'admin', expires_at_ms: Date.now() + 43_200_000 });
      }
      case 'GET session': return json(response, { user: 'admin', role: 'admin', expires_at_ms: Date.now() + 43_200_000 });
      case 'DELETE session': this.sessionValid = false; return empty(response);
      case 'POST password': return (JSON.parse(body) as { old: string }).old === PASSWORD ? empty(response) : refuse(response, 401, 'the old password is wrong');
      case 'GET tokens': return json(response, { tokens: [{ id: 't1', name: 'ci', created_at_ms: Date.now() - 864e5, expires_at_ms: null, last_used_at_ms: Date.now() - 60_000 }, { id: 't2', name: 'grafana', created_at_ms: Date.now() - 864e6, expires_at_ms: Date.now() + 864e6, last_used_at_ms: null }] });
      case 'POST tokens': return json(response, { id: 't3', token: 'swt_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAA' }, 201);
      case 'GET enrolment-tokens': return json(response, { tokens: [{ id: 'e1', env: 'prod', region: 'eu', labels: { role: 'web' }, uses_left: 3, expires_at_ms: Date.now() + 3_000_000 }] });
      case 'POST enrolment-tokens': return json(response, { id: 'e2', token: 'swe_x', command: `shipwatch-agent enroll --server 10.0.0.2:9701 --token swe_${'k7Zp'.repeat(20)}` }, 201);
      case 'GET info': return json(response, { version: '0.1.0', ca_fingerprint: 'ab12'.repeat(16), agents_address: '10.0.0.2:9701', started_at_ms: Date.now() - 3 * 864e5, now_ms: Date.now() });
      case 'GET hosts': return parts[1] ? found(world.hosts.find((host) => host.name === parts[1] || host.id === parts[1])) : json(response, { hosts: world.hosts });
      case 'POST hosts': { const host = world.hosts.find((one) => one.name === parts[1] || one.id === parts[1]); if (host) host.state = 'revoked'; return found(host); }
      case 'GET alerts': {
        if (!parts[1]) return json(response, { alerts: world.alerts });
        const alert = world.alerts.find((one) => one.fingerprint === parts[1]);
        return found(alert && { ...alert, history: [{ at_ms: alert.active_at_ms, state: 'pending', value: 81 }, { at_ms: alert.fired_at_ms ?? Date.now(), state: alert.state, value: alert.value }], deliveries: world.deliveries.filter((one) => one.fingerprints.includes(alert.fingerprint)) });
      }
      case 'GET notifications': return json(response, { deliveries: world.deliveries });
      case 'GET channels': return json(response, { channels: world.channels });
      case 'POST channels': return json(response, parts[1] === 'mail' ? { ok: false, answer: 'smtp.example.com:465: connection refused', took_ms: 30 } : { ok: true, answer: 'errcode 0', took_ms: 120 });
      case 'GET deployments':
        if (parts[2] === 'events') return this.deploymentEvents(parts[1]!, Number(search.get('after') ?? 0), response);
        return parts[1] ? found(world.deployments.find((one) => one.id === parts[1])) : json(response, { deployments: world.deployments.map(({ spec: _spec, ...rest }) => rest) });
      case 'POST deployments': return this.changeDeployment(parts, body, response);
      case 'GET live': return this.stream('/live', response);
      case 'GET logs': return this.logs(parts.slice(1), search, response);
      case 'GET api':
      case 'POST api': return this.prometheus(parts[2]!, parts, new URLSearchParams([...search, ...form]), response);
      case 'POST -': return empty(response);
    }
    if (method === 'DELETE') return empty(response);
    refuse(response, 404, `no such address: ${method} ${path}`);
  }

  private prometheus(name: string, parts: string[], given: URLSearchParams, response: ServerResponse): void {
    const expr = given.get('query') ?? '';
    if (/\($/.test(expr)) return json(response, { status: 'error', errorType: 'bad_data', error: 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis' }, 400);
    const number = (key: string) => Number(given.get(key));
    if (name === 'query') return json(response, { status: 'success', data: instant(expr, number('time') || Date.now() / 1000) });
    if (name === 'query_range') return json(response, { status: 'success', data: range(expr, number('start'), number('end'), number('step')) });
    if (name === 'label' && parts[3] === '__name__') return json(response, { status: 'success', data: ['node_load1', 'node_memory_MemAvailable_bytes', 'node_network_receive_bytes_total'] });
    refuse(response, 404, name);
  }

  private logs([part, label]: string[], search: URLSearchParams, response: ServerResponse): void {
    const query = search.get('query') ?? '';
    if (query.includes('{{')) return refuse(response, 400, 'query: column 2: expected a label’s name, found {');
    const words = query.startsWith('{') ? [] : query.toLowerCase().split(/\s+/);
    const wanted = this.world.entries.filter((one) => words.every((word) => one.line.toLowerCase().includes(word)) && (/level="(\w+)"/.exec(query)?.[1] ?? one.severity) === one.severity);
    if (part === 'tail') return this.stream('/logs/tail', response);
    if (part === 'labels' && label) return json(response, { values: { host: ['web-1', 'web-2', 'db-1'], env: ['prod'], region: ['eu'], filename: ['/var/log/shop/app.log', '/var/log/syslog'] }[label] ?? [] });
    if (part === 'labels') return json(response, { labels: ['env', 'filename', 'host', 'region'] });
    if (part === 'context') {
      const at = this.world.entries.findIndex((one) => one.id === search.get('id'));
      return json(response, { entries: this.world.entries.slice(Math.max(0, at - 3), at + 4).reverse() });
    }
    if (part === 'histogram') {
      const step = Number(search.get('step_ms'));
      const buckets = new Map<number, Record<string, number>>();
      for (const one of wanted) {
        const at = Math.floor(Number(one.ts_ns.slice(0, -6)) / step) * step;
        const counts = buckets.get(at) ?? {};
        counts[one.severity] = (counts[one.severity] ?? 0) + 1;
        buckets.set(at, counts);
      }
      return json(response, { buckets: [...buckets].sort(([a], [b]) => a - b).map(([ts_ms, counts]) => ({ ts_ms, counts })) });
    }
    const from = Number(search.get('cursor') ?? 0);
    const limit = Number(search.get('limit') ?? 200);
    json(response, { entries: wanted.slice(from, from + limit), next: from + limit < wanted.length ? String(from + limit) : null, stats: { blocks_read: 12, bytes_read: 1_234_567, took_ms: 4.2, skipped_corrupt: 0 } });
  }

  private deploymentEvents(id: string, after: number, response: ServerResponse): void {
    const path = `/deployments/${id}/events`;
    this.stream(path, response);
    for (const event of this.world.events[id] ?? []) if (event.n > after) this.push(path, 'deployment', event, event.n);
    if (this.world.deployments.find((one) => one.id === id)?.state !== 'running') {
      response.write('event: end\ndata: {}\n\n');
      response.end();
    }
  }

  private changeDeployment(parts: string[], body: string, response: ServerResponse): void {
    const { world } = this;
    const old = world.deployments.find((one) => one.id === parts[1]);
    if (parts[2] === 'abort' && old) {
      Object.assign(old, { state: 'aborted', finished_at_ms: Date.now() });
      return json(response, old);
    }
    const given = parts[1] ? null : (JSON.parse(body) as { spec_yaml: string; hosts?: string[] });
    if (given && !/^app:/m.test(given.spec_yaml)) return refuse(response, 400, 'spec: app: must not be empty\nspec: steps: at least one is needed');
    const names = given?.hosts ?? old?.hosts.map((host) => host.name) ?? ['web-1'];
    const made = { ...world.deployments[0]!, id: 'dep-new', rollback_of: parts[2] === 'rollback' ? parts[1]! : null, created_at_ms: Date.now(), state: 'running' as const, hosts: names.map((name) => ({ id: name, name, state: 'pending' as const, reason: '', release: null, started_at_ms: null, finished_at_ms: null })) };
    world.deployments.unshift(made);
    world.events[made.id] = [];
    json(response, made, 201);
  }

  private stream(path: string, response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write(':\n\n');
    const all = this.streams.get(path) ?? new Set();
    all.add(response);
    this.streams.set(path, all);
    response.on('close', () => all.delete(response));
  }

  private async file(path: string, response: ServerResponse): Promise<void> {
    const wanted = normalize(path).replace(/^\/+/, '');
    const name = extname(wanted) ? wanted : 'index.html';
    const body = await readFile(join(DIST, name)).catch(() => null);
    response.writeHead(body ? 200 : 404, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'cache-control': 'no-cache' });
    response.end(body);
  }
}

function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

function empty(response: ServerResponse): void {
  response.writeHead(204);
  response.end();
}

function refuse(response: ServerResponse, status: number, message: string, headers: Record<string, string> = {}): void {
  const code = { 400: 'bad_request', 401: 'unauthenticated', 403: 'forbidden', 404: 'not_found', 409: 'conflict', 429: 'limited', 503: 'unavailable' }[status] ?? 'internal';
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error: { code, message, id: '0193b2c4-77aa-7000-9000-0123456789ab' } }));
}
