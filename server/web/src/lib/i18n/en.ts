import type { AlertState, Delivery } from '../api/alerts';
import type { DeploymentState, HostProgressState, Strategy } from '../api/deployments';
import type { HostState } from '../api/hosts';
import type { Severity } from '../api/logs';

const plural = (n: number, one: string, many = `${one}s`): string => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

export const en = {
  name: 'Shipwatch',
  nav: {
    main: 'Main', skip: 'Skip to the content', overview: 'Overview', hosts: 'Hosts', logs: 'Logs', explore: 'Explore', alerts: 'Alerts', deploys: 'Deploys', settings: 'Settings', more: 'More',
    signOut: 'Sign out', theme: 'Theme', language: 'Language',
  },
  common: {
    copy: 'Copy', copied: 'Copied', close: 'Close', cancel: 'Cancel', again: 'Try again', reload: 'Read again', reading: 'reading…', notRead: 'not read',
    age: (ago: string) => `as of ${ago}`,
    stale: (ago: string) => `stale, as of ${ago}`,
    readAt: (at: string) => `Read ${at}. Read again`,
    all: 'All', none: 'none', yes: 'yes', no: 'no', never: 'never', filter: 'Filter', showAll: (n: number) => `Show all ${n}`, showLess: 'Show fewer',
    env: 'Environment', allEnvs: 'All environments', envs: { dev: 'dev', staging: 'staging', prod: 'prod' } as Record<string, string>,
    curl: 'Copy as curl', cli: 'Copy as CLI', delete: 'Delete', name: 'Name', state: 'State', since: 'Since', open: 'Open', back: 'Back', sort: 'Sort by', loadMore: 'Load more', columns: 'Columns',
    details: 'Details', links: 'Links', and: (n: number) => `and ${n} more`,
  },
  title: { notFound: 'There is no such page', notFoundText: 'The address may be mistyped, or the page has moved.' },
  failure: {
    unreachable: 'The server does not answer. It may be restarting, or the network between you and it is cut. Check the address and that shipwatch-server runs; this page goes on by itself when it is back.',
    forbidden: 'You may not do this.',
    notFound: 'It is not there (any more).',
    limited: (s: number | null) => (s === null ? 'Too many requests. Wait a moment.' : `Too many attempts. Possible again in ${plural(s, 'second')}.`),
    unavailable: 'The server cannot do this right now. Its log says why.',
    internal: 'Something in the server failed. Its log has the reason under this id.',
    id: 'id in the server’s log:',
    page: 'This part could not be read.',
  },
  tone: { ok: 'OK', warning: 'Warning', critical: 'Critical', unknown: 'Unknown', silenced: 'Silenced', changing: 'Changing' },
  hostState: { up: 'OK', silent: 'Silent', stopped: 'Stopped', enrolled: 'Never connected', revoked: 'Revoked' } satisfies Record<HostState, string> as Record<HostState, string>,
  hostStateHelp: {
    up: 'The agent is connected.',
    silent: 'The connection broke and the agent did not say goodbye: the host, its network or the agent is down.',
    stopped: 'The agent said goodbye: it was stopped, or the host is shutting down.',
    enrolled: 'Enrolled, but its agent has never connected.',
    revoked: 'Its certificate is refused.',
  } satisfies Record<HostState, string> as Record<HostState, string>,
  signIn: {
    title: 'Sign in', user: 'User', password: 'Password', button: 'Sign in', busy: 'Checking…', lead: 'Ship it, watch it, know first when it breaks.',
    wrong: 'The name or the password is wrong.',
    wrongHelp: 'The first password is set with SHIPWATCH_ADMIN_PASSWORD or shown once by the server at its first start.',
    limited: (s: number) => `Too many wrong attempts from your address. You can try again in ${plural(s, 'second')}.`,
    returns: 'You were signed out. Sign in and you are back where you were.',
    show: 'Show password', hide: 'Hide password',
  },
  range: {
    label: 'Time range', last: { '15m': 'Last 15 minutes', '1h': 'Last hour', '6h': 'Last 6 hours', '24h': 'Last 24 hours', '7d': 'Last 7 days', '30d': 'Last 30 days' } as Record<string, string>,
    from: 'From', to: 'To', apply: 'Apply', wrong: '“From” must be before “to”.', zone: (zone: string) => `Times are in your time zone, ${zone}.`, custom: 'From – to', backToNow: 'Back to now',
  },
  hosts: {
    title: 'Hosts', search: 'Filter by name, label, region', count: (n: number) => plural(n, 'host'), shown: (n: number, all: number) => (n === all ? plural(n, 'host') : `${n} of ${plural(all, 'host')}`),
    add: 'Add host', name: 'Host', state: 'State', env: 'Env', region: 'Region', cpu: 'CPU, %', memory: 'Memory, %', disk: 'Fullest disk, %', load: 'Load', network: 'Network',
    lastSeen: 'last seen', emptyTitle: 'No hosts yet', emptyText: 'Every host with an agent appears here within seconds, with its load, memory, disks and network. Make a command and run it on the host as root.',
    noMatch: 'No host matches the filter', clear: 'Clear the filter', anyState: 'Any state', sparkHelp: 'the last hour; all lines of a column share one scale', cores: (n: number) => `of ${plural(n, 'core')}`, noValues: 'Values could not be read',
  },
  enrol: {
    title: 'Add a host', lead: 'Makes a token and the command that enrols a host with it. The token is shown once; it works for as many hosts and as long as you say.',
    env: 'Environment', region: 'Region', regionHelp: 'such as eu, hk, us; may be empty', labels: 'Labels', labelsHelp: 'such as role=web, team=shop', ttl: 'Valid for', uses: 'Hosts', make: 'Make the command', making: 'Making…',
    ttls: { '15m': '15 minutes', '1h': '1 hour', '24h': '1 day', '7d': '7 days' } as Record<string, string>,
    done: 'Run this on the host, as root:', once: 'Shown only now. Whoever has it can enrol a host until it is used up or expires.', then: 'Then start the agent; the host appears in the table by itself:',
    another: 'Make another', labelsWrong: 'Labels are written name=value, separated by commas.', waiting: 'Waiting for the host…', joined: (names: string) => `Joined: ${names}`,
  },
  live: { broken: 'The live connection to the server is cut; it is tried again. What you see may be old.' },
  palette: { open: 'Search and commands', placeholder: 'Search hosts, alerts, pages…', light: 'Light theme', dark: 'Dark theme', inLogs: (text: string) => `Search logs for “${text}”` },
  help: {
    title: 'Keys', search: 'Search and commands', time: 'Time range', help: 'This help', escape: 'Close',
    charts: 'Charts: drag over a part to zoom in, double click to go back. The cursor is shared by all charts of a page.',
  },
  alertState: { firing: 'Firing', pending: 'Pending', resolved: 'Resolved' } satisfies Record<AlertState, string> as Record<AlertState, string>,
  severity: { critical: 'Critical', warning: 'Warning', info: 'Info' } as Record<string, string>,
  logSeverity: { fatal: 'fatal', error: 'error', warn: 'warn', info: 'info', debug: 'debug', trace: 'trace', unknown: 'unknown' } satisfies Record<Severity, string> as Record<Severity, string>,
  deliveryState: { queued: 'Queued', accepted: 'Accepted', throttled: 'Throttled', dead: 'Given up' } satisfies Record<Delivery['state'], string> as Record<Delivery['state'], string>,
  deploymentState: { running: 'Running', succeeded: 'Succeeded', failed: 'Failed', aborted: 'Aborted' } satisfies Record<DeploymentState, string> as Record<DeploymentState, string>,
  progress: {
    pending: 'Pending', sent: 'Sent', preparing: 'Preparing', switching: 'Switching', reverting: 'Going back', succeeded: 'Succeeded', failed: 'Failed', reverted: 'Went back',
    revert_failed: 'Going back failed', refused: 'Refused', skipped: 'Skipped', unknown: 'Unknown',
  } satisfies Record<HostProgressState, string> as Record<HostProgressState, string>,
  strategy: { one_by_one: 'One by one', all_at_once: 'All at once' } satisfies Record<Strategy, string> as Record<Strategy, string>,
  overview: {
    title: 'Overview', wrong: 'Wrong now', quiet: 'All quiet', quietText: (hosts: number) => `No alert fires, all ${hosts} connected hosts answer, no deployment has failed in the last 24 hours, every message was delivered.`,
    noHosts: 'Nothing is watched yet. Add a first host.', changed: 'What changed', changedEmpty: 'Nothing changed in the last 24 hours.', last24: 'last 24 hours', joined: 'Joined', fleet: 'Fleet', hostSilent: (name: string) => `${name} is silent`,
    silentFor: 'last seen', deployRunning: (name: string) => `${name} is being deployed`, deployFailed: (name: string) => `Deployment of ${name} failed`, deployAborted: (name: string) => `Deployment of ${name} was aborted`,
    deploySucceeded: (name: string) => `${name} deployed`, rolledBack: (name: string) => `${name} rolled back`, undelivered: (channel: string) => `Message to ${channel} was given up`, throttled: (channel: string) => `Message to ${channel} waits for its quota`,
    fired: (name: string) => `${name} fired`, resolved: (name: string) => `${name} resolved`, enrolled: (name: string) => `${name} joined`, by: (who: string) => `by ${who}`, onHosts: (n: number) => `on ${plural(n, 'host')}`,
    attempts: (n: number) => plural(n, 'attempt'), busiest: 'Highest CPU', logs: 'Logs', allAlerts: 'All alerts', allDeploys: 'All deploys', unread: 'Not all parts could be read; what is missing may be wrong, too.',
  },
  host: {
    facts: 'Facts', os: 'System', kernel: 'Kernel', arch: 'Architecture', agent: 'Agent', cpus: 'CPUs', memory: 'Memory', up: 'Up since', address: 'Address', rtt: 'Round trip', clock: 'Clock ahead by', enrolled: 'Enrolled', certificate: 'Certificate until', pending: 'Waiting to be sent',
    deploys: 'Deployments', deploysAllowed: 'allowed by the host’s policy', deploysForbidden: 'refused by the host’s policy', id: 'Id', labels: 'Labels', alerts: 'Alerts', noAlerts: 'No alert for this host.', noDeploys: 'No deployment to this host yet.', logs: 'Logs of this host', actions: 'Actions',
    lastSeen: 'Last seen', silent: 'This host is silent. Charts end where it was last heard.', revoke: 'Revoke', revokeTitle: (name: string) => `Revoke ${name}?`,
    revokeText: (name: string) => `The certificate of ${name} is refused from now on and its connection is closed. It sends no more metrics and logs and takes no deployments. What was collected stays. This cannot be undone; to bring the host back, enrol it again with a new token.`,
    revokeDo: (name: string) => `Revoke ${name}`, notFound: (name: string) => `There is no host “${name}”`, charts: 'Charts',
    cpu: 'CPU by mode, %', load: 'Load and cores', memoryChart: 'Memory', swap: 'Swap', diskSpace: 'Disk space used, %', diskIo: 'Disk reads (up) and writes (down)', network: 'Network received (up) and sent (down)', psi: 'Time stalled for lack of a resource, %', files: 'Open file handles',
    modes: { user: 'user', system: 'system', iowait: 'waiting for IO', steal: 'steal', irq: 'irq', softirq: 'softirq', nice: 'nice' } as Record<string, string>,
    used: 'used', cached: 'cache', free: 'free', buffers: 'buffers', cores: 'cores', limit: 'limit', received: 'received', sent: 'sent', read: 'read', written: 'written', swapUsed: 'used', total: 'total',
    psiNames: { cpu: 'CPU', io: 'IO', memory: 'memory' } as Record<string, string>, load1: '1 min', load5: '5 min', load15: '15 min', noSwap: 'This host has no swap.',
  },
  chart: {
    empty: 'No data in this time range.', series: 'Series', last: 'Last', min: 'Min', mean: 'Mean', max: 'Max', deploy: (name: string) => `deployed ${name}`, alert: (name: string) => `${name} fired`, summary: (title: string, n: number) => `${title}: ${plural(n, 'series', 'series')}`, threshold: 'threshold', failed: 'Could not be read',
  },
  explore: {
    title: 'Explore', placeholder: 'PromQL, such as rate(node_network_receive_bytes_total[5m])', run: 'Run', expr: 'Expression', chart: 'Chart', table: 'Table', emptyTitle: 'Ask anything of the series', emptyText: 'Metric names are those of node_exporter. Some to begin with:',
    examples: { cpu: 'CPU busy by host', disk: 'Disks that are full in 4 hours', memory: 'Memory available', requests: 'Hosts that report' } as Record<string, string>, wrong: 'The expression could not be evaluated', value: 'Value', series: (n: number) => plural(n, 'series', 'series'), step: (s: string) => `one point every ${s}`, noResult: 'The expression is right but no series matches it in this time range.', names: 'Metrics', at: (when: string) => `values at ${when}`,
  },
  logs: {
    title: 'Logs', placeholder: 'Words, or {host="web-1"} |= "timeout" | level="error"', query: 'Query', run: 'Search', live: 'Live', stopLive: 'Stop live', lines: (n: number) => plural(n, 'line'), histogram: 'Lines by severity', took: (ms: string, bytes: string) => `${ms}, ${bytes} read`,
    corrupt: (n: number) => `${plural(n, 'damaged block')} left out; the server’s log says which.`, none: 'No line matches', noneText: 'Nothing in this time range fits the query. Try a longer range, fewer filters, or another spelling: filters in braces distinguish upper and lower case.', emptyTitle: 'No logs yet', emptyText: 'Lines appear here as soon as an agent tails a file. Which files is said in agent.toml under [tail].',
    older: 'Load older lines', end: 'No older lines in this time range.', anyLabel: (name: string) => `${name}: any`, anySeverity: 'Any severity', following: 'Following', paused: 'Paused while you read', resume: 'Go on', waitingLines: (n: number) => `${plural(n, 'new line')}`, gap: (n: number) => `${plural(n, 'line')} left out here: more came than this page could take`, tailEmpty: 'Waiting for lines that match…', tailBroken: 'The stream is cut; it is tried again. Lines of the meantime are missing here.', tailCut: (n: number) => `Older lines were dropped from this page; it keeps ${n.toLocaleString('en')}.`,
    context: 'Lines around it', hideContext: 'Hide lines around it', labels: 'Labels', filterBy: (name: string, value: string) => `Only lines with ${name} = ${value}`, truncated: 'The line was longer and was cut at collection.', wrap: 'Wrap', wrong: 'The query could not be read', selected: 'Line', masked: 'Personal data was masked before it left the host.', list: 'Log lines', newest: 'newest first', oldest: 'oldest first',
  },
  alerts: {
    title: 'Alerts', tabs: { now: 'Now', resolved: 'Resolved', channels: 'Channels', messages: 'Messages' } as Record<string, string>, none: 'No alert fires', noneText: 'When a rule’s expression holds for its time, the alert appears here and goes to the channels.', noResolved: 'No alert was resolved in the last 24 hours.', rules: 'Rules are read from files; see [rules] in server.toml.',
    name: 'Alert', severity: 'Severity', value: 'Value', on: 'On', since: 'Since', expr: 'Expression', group: 'Group', labels: 'Labels', summary: 'Summary', history: 'History', noHistory: 'No transition recorded yet.', deliveries: 'Messages about it', noDeliveries: 'No message about it yet.', chart: 'The expression over time', notFound: 'There is no such alert (any more)', notFoundText: 'Resolved alerts are kept for 24 hours.', active: 'Began', fired: 'Fired', resolved: 'Resolved',
    channel: 'Channel', kind: 'Kind', target: 'Target', test: 'Send a test', testing: 'Sending…', testOk: (ms: string) => `Accepted in ${ms}`, testFailed: 'Not accepted', noChannels: 'No channel is set up', noChannelsText: 'Alerts reach nobody yet. Add [[notify.channels]] to server.toml: DingTalk, WeCom, Feishu, e-mail, webhook and others.', 
    noMessages: 'No message was sent yet', noMessagesText: 'Every message about an alert is listed here with what the channel answered.', message: 'Message', attempts: 'Attempts', created: 'Created', error: 'Error', next: 'next attempt', search: 'Filter by name, host, label', openInExplore: 'Open in Explore', logs: 'Logs of the host at that time', kindOf: { firing: 'fired', resolved: 'resolved', test: 'test', reminder: 'reminder', repeat: 'reminder' } as Record<string, string>,
  },
  deploys: {
    title: 'Deploys', new: 'New deployment', none: 'No deployment yet', noneText: 'A deployment takes an application’s release to hosts, step by step, and back by itself if it is not healthy there. Write a deploy.yml and start it here or with “shipwatch deploy”.', app: 'Application', release: 'Release', hosts: 'Hosts', by: 'By', started: 'Started', took: 'Took', reason: 'Reason', strategy: 'Order', rollbackOf: 'takes back',
    spec: 'Specification', specHelp: 'Paste a deploy.yml, or drop the file here.', chooseFile: 'Choose a file', specRead: (app: string, release: string) => `${app}, release ${release}`, specUnread: 'No app and release found at the top of the text yet.', target: 'Where to', pick: 'Pick hosts', selector: 'By labels', selectorHelp: 'such as env=staging, role=web', selectorWrong: 'Labels are written name=value, separated by commas.', matches: (n: number) => `${plural(n, 'host')} match`, matchesNone: 'No host has these labels.', filterHosts: 'Filter hosts', 
    silent: (names: string) => `Silent now, so the server will refuse: ${names}`, forbidden: (names: string) => `Their own policy refuses deployments: ${names}`, stopOnFailure: 'Stop at the first failure', stopHelp: 'Hosts that have not begun are skipped.', review: 'Review', confirmTitle: (name: string) => `Deploy ${name}?`, confirmText: (n: number) => `This happens to exactly ${n === 1 ? 'this host' : `these ${n} hosts`}:`, confirmOne: 'One host after the other: the next begins when the one before has succeeded.', confirmAll: 'All hosts at the same time.', confirmStop: 'At the first failure no further host is begun.', confirmGoOn: 'A failure on one host does not stop the others.', confirmBack: 'A host whose new release does not become healthy goes back to the release before by itself.', start: (n: number) => `Deploy to ${plural(n, 'host')}`, starting: 'Starting…', refused: 'The server did not start it',
    output: 'Output', allHosts: 'All hosts', waitingOutput: 'Waiting for output…', noOutput: 'No output was recorded.', stepStarted: (step: string) => `${step}: started`, stepDone: (step: string, took: string) => `${step}: done in ${took}`, stepFailed: (step: string, detail: string) => `${step}: failed, ${detail}`, hostNow: (state: string) => `now: ${state}`, outputCut: (n: number) => `Only the last ${n.toLocaleString('en')} lines are shown. “shipwatch deployments ID” prints all.`, streamBroken: 'The stream is cut; it goes on where it was as soon as the server is back.', ended: 'ended', follow: 'Follow', 
    abort: 'Abort', abortTitle: 'Abort this deployment?', abortText: (running: string, waiting: string) => [running && `These hosts are at it and go back: ${running}.`, waiting && `These are not begun: ${waiting}.`].filter(Boolean).join(' '), abortKept: (names: string) => `These have the new release and keep it: ${names}. Roll back to take them back, too.`, aborting: 'Abort was asked for; running hosts go back.',
    rollback: 'Roll back', rollbackTitle: (name: string) => `Roll back ${name}?`, rollbackText: 'A new deployment takes exactly these hosts back to the release before:', rollbackNone: 'No host has the new release; there is nothing to roll back.', rollbackDo: (n: number) => `Roll back ${plural(n, 'host')}`, notFound: 'There is no such deployment', progressOf: (done: number, all: number) => `${done} of ${all}`, finished: 'Finished', anyApp: 'Any application', noMatch: 'No deployment matches the filter', hostState: 'On the host', serves: 'Serves',
  },
  settings: {
    title: 'Settings', session: 'Session', signedInAs: 'Signed in as', role: 'Role', expires: 'Session ends', appearance: 'Appearance', themes: { system: 'System', light: 'Light', dark: 'Dark' }, theme: 'Theme', language: 'Language', password: 'Password', oldPassword: 'Present password', newPassword: 'New password', repeat: 'New password again', change: 'Change the password', changed: 'The password is changed. Your other sessions have ended.', mismatch: 'The two new passwords differ.', oldWrong: 'The present password is wrong.', short: 'At least 10 characters.',
    tokens: 'API tokens', tokensHelp: 'For scripts, CI and Grafana: sent as “Authorization: Bearer TOKEN”.', tokenName: 'What it is for', ttl: 'Valid for', forever: 'until deleted', ttls: { '': 'Until deleted', '30d': '30 days', '90d': '90 days', '365d': '1 year' } as Record<string, string>, make: 'Make a token', made: 'The new token, shown only now:', created: 'Created', used: 'Last used', until: 'Valid until', noTokens: 'No API tokens.', deleteToken: (name: string) => `Delete ${name}?`, deleteTokenText: 'Whatever uses this token is refused from now on. This cannot be undone.', deleteDo: 'Delete the token',
    enrolments: 'Enrolment tokens', enrolmentsHelp: 'Tokens that still let hosts in.', noEnrolments: 'No enrolment token is open.', uses: 'Uses left', deleteEnrolText: 'No further host can enrol with it. Hosts that already did are not affected.', server: 'Server', version: 'Version', fingerprint: 'Fingerprint of its CA', agents: 'Agents connect to', startedAt: 'Running since', clockDiffers: (by: string) => `Your clock and the server’s differ by ${by}.`, reload: 'Read the rule files again', reloaded: 'The rule files were read.', reloadFailed: 'The rule files have mistakes; the old rules stay', rules: 'Rules',
  },
} as const;

/** Literal texts become `string`, functions keep their arguments. */
type Widen<T> = T extends string ? string : T extends (...args: infer A) => string ? (...args: A) => string : { readonly [K in keyof T]: Widen<T[K]> };
export type Catalogue = Widen<typeof en>;

export type States = { alert: AlertState; delivery: Delivery['state']; deployment: DeploymentState; progress: HostProgressState; strategy: Strategy; severity: Severity };
