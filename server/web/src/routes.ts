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
  ['/hosts', 'hosts', (t) => t.nav.hosts, () => import('./pages/Hosts.svelte')],
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
