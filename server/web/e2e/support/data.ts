/** Canned answers: a small shop's fleet, with something of everything that can be wrong. */
import type { Alert, Channel, Delivery } from '../../src/lib/api/alerts';
import type { Deployment, DeploymentEvent } from '../../src/lib/api/deployments';
import type { Host } from '../../src/lib/api/hosts';
import type { Entry, Severity } from '../../src/lib/api/logs';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export interface World {
  hosts: Host[];
  alerts: Alert[];
  deliveries: Delivery[];
  channels: Channel[];
  deployments: Deployment[];
  events: Record<string, DeploymentEvent[]>;
  entries: Entry[];
}

function host(now: number, name: string, env: string, region: string, more: Partial<Host> = {}): Host {
  return {
    id: `0193a1b2-0000-7000-8000-${Buffer.from(name.padEnd(6, '0')).toString('hex').slice(0, 12)}`,
    name, env, region, labels: { role: name.split('-')[0]! }, state: 'up', last_seen_ms: now - 2000, enrolled_at_ms: now - 40 * DAY, certificate_expires_ms: now + 25 * DAY,
    facts: { hostname: name, os: 'Debian GNU/Linux 12 (bookworm)', kernel: '6.1.0-28-amd64', arch: 'x86_64', agent_version: '0.1.0', cpus: 4, memory_bytes: 8 * 2 ** 30, boot_time_s: Math.round((now - 12 * DAY) / 1000) },
    address: '10.0.3.17:51000', transport: 'quic', rtt_ms: 31.4, clock_offset_ms: 3,
    lanes: { metrics: { pending_bytes: 0 }, logs: { pending_bytes: 20_480 }, events: { pending_bytes: 0 } }, deploys_allowed: true, ...more,
  };
}

function alert(now: number, name: string, state: Alert['state'], severity: string, instance: string, more: Partial<Alert> = {}): Alert {
  return {
    fingerprint: Buffer.from(`${name}${instance}`).toString('hex').slice(0, 16), name, state, severity, value: 92.14, labels: { alertname: name, instance, env: 'prod', severity },
    annotations: { summary: `${instance}: ${name} over its limit`, description: 'Look at what runs there; see the runbook of the application.' },
    expr: '100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))) > 80', group: 'host',
    active_at_ms: now - 25 * MINUTE, fired_at_ms: state === 'pending' ? null : now - 20 * MINUTE, resolved_at_ms: state === 'resolved' ? now - 5 * MINUTE : null, ...more,
  };
}

const LINES: [Severity, string, string][] = [
  ['info', 'nginx/access.log', '10.0.0.8 - - "GET /api/orders?page=2 HTTP/1.1" 200 5123 0.042 "Mozilla/5.0 (X11; Linux x86_64)"'],
  ['error', 'shop/app.log', 'order 88213 not synced: upstream timeout after 30s (marketplace=eu, attempt 3) buyer=[email] phone=[phone]'],
  ['warn', 'shop/app.log', '库存同步延迟 42 秒,队列积压 1284 条,买家 [姓名] 的订单等待重试'],
  ['info', 'shop/app.log', '{"level":"info","msg":"order synced","order":88214,"took_ms":182,"items":[{"sku":"A-1","qty":2},{"sku":"B-7","qty":1}],"warehouse":"HK-2"}'],
  ['debug', 'shop/worker.log', 'picked job 5512 from queue sync'],
  ['fatal', 'shop/worker.log', 'panic: connection pool exhausted (used=100 max=100)'],
  ['unknown', 'syslog', 'systemd[1]: Started shop-worker.service'],
];

export function entry(at: number, n: number, hostName = 'web-1'): Entry {
  const [severity, file, line] = LINES[n % LINES.length]!;
  return { id: `${at}-${n}`, ts_ns: `${at}000000`, labels: { host: hostName, filename: `/var/log/${file}`, env: 'prod', region: 'eu' }, severity, line, truncated: n % 50 === 49 };
}

function deployment(now: number, id: string, app: string, release: string, state: Deployment['state'], hosts: Deployment['hosts'], more: Partial<Deployment> = {}): Deployment {
  return {
    id, app, release, state, strategy: 'one_by_one', stop_on_failure: true, created_by: 'admin', created_at_ms: now - 2 * HOUR, finished_at_ms: state === 'running' ? null : now - 2 * HOUR + 95_000, rollback_of: null, reason: '', hosts,
    spec: { version: 1, app, release, artifact: { url: `https://builds.example.com/${app}/${release}.tar.gz`, sha256: 'c'.repeat(64) }, root: `/srv/${app}`, steps: [{ id: 'start', phase: 'start', run: './start.sh', timeout: '30s' }], health: [{ http: 'http://127.0.0.1:8080/up', pass: 2 }] },
    ...more,
  };
}

export function world(now: number): World {
  const hosts = [
    host(now, 'web-1', 'prod', 'eu', { labels: { role: 'web', team: 'shop' } }), host(now, 'web-2', 'prod', 'eu'), host(now, 'db-1', 'prod', 'hk', { deploys_allowed: false }),
    host(now, 'sync-worker-with-a-rather-long-name-7', 'prod', 'us'),
    host(now, 'web-3', 'prod', 'cn', { state: 'silent', last_seen_ms: now - 14 * MINUTE, transport: null, rtt_ms: null, lanes: { metrics: { pending_bytes: null }, logs: { pending_bytes: null }, events: { pending_bytes: null } } }),
    host(now, 'web-stage-1', 'staging', 'eu'), host(now, 'dev-box', 'dev', '', { state: 'stopped', last_seen_ms: now - 9 * HOUR }), host(now, 'new-1', 'dev', 'cn', { state: 'enrolled', last_seen_ms: null, facts: null, address: null, transport: null }),
  ];
  const id = (name: string) => hosts.find((one) => one.name === name)!.id;
  const progress = (name: string, state: Deployment['hosts'][number]['state'], more: Partial<Deployment['hosts'][number]> = {}) => ({
    id: id(name), name, state, reason: '', release: state === 'succeeded' ? 'v42' : 'v41', started_at_ms: state === 'pending' ? null : now - 2 * HOUR, finished_at_ms: ['succeeded', 'failed', 'reverted'].includes(state) ? now - 2 * HOUR + 45_000 : null, ...more,
  });
  const running = deployment(now, 'dep-running', 'shop-api', 'v42', 'running', [progress('web-1', 'succeeded'), progress('web-2', 'switching'), progress('sync-worker-with-a-rather-long-name-7', 'pending')], { created_at_ms: now - 40_000 });
  const failed = deployment(now, 'dep-failed', 'order-sync', '2025.11.3-rc.1+build.8812', 'failed', [progress('web-1', 'reverted', { reason: 'health check http://127.0.0.1:8080/up: status 500, not 2xx, for 30s' }), progress('web-2', 'skipped')], { reason: 'web-1 went back to v41: health check failed' });
  const done = deployment(now, 'dep-done', 'shop-api', 'v41', 'succeeded', [progress('web-1', 'succeeded', { release: 'v41' }), progress('web-2', 'succeeded', { release: 'v41' })], { created_at_ms: now - 5 * HOUR, finished_at_ms: now - 5 * HOUR + 62_000 });
  const back = deployment(now, 'dep-back', 'shop-api', 'v40', 'succeeded', [progress('web-1', 'succeeded', { release: 'v40' })], { created_at_ms: now - 30 * HOUR, finished_at_ms: now - 30 * HOUR + 20_000, rollback_of: 'dep-done', created_by: 'release-bot' });
  const alerts = [
    alert(now, 'HostDown', 'firing', 'critical', 'web-3', { expr: 'up == 0', value: 0, fired_at_ms: now - 13 * MINUTE }),
    alert(now, 'CpuBusy', 'firing', 'warning', 'web-1'),
    alert(now, 'DiskFillsUp', 'pending', 'warning', 'db-1', { expr: 'predict_linear(node_filesystem_avail_bytes[6h], 4 * 3600) < 0' }),
    alert(now, 'MemoryLow', 'resolved', 'warning', 'web-2', { value: null }),
  ];
  const delivery = (n: number, state: Delivery['state'], more: Partial<Delivery> = {}): Delivery => ({
    id: `msg-${n}`, channel: 'ding-ops', kind: 'dingtalk', state, reason: 'firing', title: '【严重】web-3 HostDown', attempts: 1, created_at_ms: now - n * 7 * MINUTE, next_attempt_ms: null, finished_at_ms: now - n * 7 * MINUTE + 400, last_error: null, fingerprints: [alerts[0]!.fingerprint], ...more,
  });
  const deliveries = [
    delivery(1, 'accepted'), delivery(2, 'throttled', { next_attempt_ms: now + 40_000, finished_at_ms: null, title: '[Warning] web-1 CpuBusy', fingerprints: [alerts[1]!.fingerprint] }),
    delivery(3, 'dead', { channel: 'mail', kind: 'email', attempts: 8, last_error: 'smtp.example.com:465: connection refused', title: '[Critical] web-3 HostDown' }),
    delivery(4, 'queued', { finished_at_ms: null, attempts: 0 }), delivery(5, 'accepted', { reason: 'resolved', title: '【已恢复】web-2 MemoryLow' }),
  ];
  const channels = [{ name: 'ding-ops', kind: 'dingtalk', target: 'https://oapi.dingtalk.com/…' }, { name: 'mail', kind: 'email', target: 'ops@example.com' }];
  const events: World['events'] = { 'dep-running': script(now - 40_000), 'dep-failed': script(now - 2 * HOUR).slice(0, 6), 'dep-done': [] , 'dep-back': [] };
  const entries = Array.from({ length: 600 }, (_, n) => entry(now - n * 5000, n, ['web-1', 'web-2', 'db-1'][n % 3]));
  return { hosts, alerts, deliveries, channels, deployments: [running, failed, done, back], events, entries };
}

function script(from: number): DeploymentEvent[] {
  const events: DeploymentEvent[] = [];
  const add = (host: string, event: object) => events.push({ n: events.length + 1, at_ms: from + events.length * 900, host, ...event } as DeploymentEvent);
  for (const host of ['web-1', 'web-2']) {
    add(host, { kind: 'state', state: 'preparing', reason: '', release: null });
    add(host, { kind: 'step_started', step: 'check' });
    add(host, { kind: 'output', step: 'check', text: 'config ok\n3 migrations pending\n' });
    add(host, { kind: 'step_finished', step: 'check', ok: true, detail: 'exit code 0', took_ms: 640 });
    add(host, { kind: 'state', state: 'switching', reason: '', release: null });
    add(host, { kind: 'output', step: 'start', text: '\u001b[32mlistening\u001b[0m on 8080 启动完成\n' });
    if (host === 'web-1') add(host, { kind: 'state', state: 'succeeded', reason: '', release: 'v42' });
  }
  return events;
}
