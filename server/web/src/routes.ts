/** Addresses of the dashboard. Pages are loaded when they are first visited. */
import type { Component } from 'svelte';
import type { Catalogue } from './lib/i18n';

export type Section = 'overview' | 'hosts' | 'logs' | 'explore' | 'alerts' | 'deploys' | 'settings' | '';

interface Found {
  section: Section;
  title(words: Catalogue): string;
  // Parameters of a route are named in its pattern, which the type of a component cannot know.
  page(): Promise<{ default: Component<any> }>;
  parameters: Record<string, string>;
  /** Another key is another page, even if the component is the same. */
  key: string;
}

type Route = [pattern: string, section: Section, title: (words: Catalogue, first: string) => string, page: Found['page']];

const routes: Route[] = [
  ['/', 'overview', (t) => t.nav.overview, () => import('./pages/Overview.svelte')],
  ['/signin', 'overview', (t) => t.nav.overview, () => import('./pages/Overview.svelte')],
  ['/hosts', 'hosts', (t) => t.nav.hosts, () => import('./pages/Hosts.svelte')],
  ['/hosts/:name', 'hosts', (_, name) => name, () => import('./pages/Host.svelte')],
  ['/logs', 'logs', (t) => t.nav.logs, () => import('./pages/Logs.svelte')],
  ['/explore', 'explore', (t) => t.nav.explore, () => import('./pages/Explore.svelte')],
  ['/alerts', 'alerts', (t) => t.nav.alerts, () => import('./pages/Alerts.svelte')],
  ['/alerts/:fingerprint', 'alerts', (t) => t.nav.alerts, () => import('./pages/Alert.svelte')],
  ['/deploys', 'deploys', (t) => t.nav.deploys, () => import('./pages/Deploys.svelte')],
  ['/deploys/new', 'deploys', (t) => t.deploys.new, () => import('./pages/DeployNew.svelte')],
  ['/deploys/:id', 'deploys', (t) => t.nav.deploys, () => import('./pages/Deployment.svelte')],
  ['/settings', 'settings', (t) => t.nav.settings, () => import('./pages/Settings.svelte')],
];

const lost: Found['page'] = () => import('./pages/NotFound.svelte');

export function match(path: string): Found {
  for (const [pattern, section, title, page] of routes) {
    const parameters = parametersOf(pattern, path);
    if (parameters) return { section, title: (words) => title(words, Object.values(parameters)[0] ?? ''), page, parameters, key: path };
  }
  return { section: '', title: (words) => words.title.notFound, page: lost, parameters: {}, key: path };
}

function parametersOf(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split('/').filter(Boolean);
  const given = path.split('/').filter(Boolean);
  if (wanted.length !== given.length) return null;
  const found: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    if (part.startsWith(':')) found[part.slice(1)] = decode(given[at]!);
    else if (part !== given[at]) return null;
  }
  return found;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
