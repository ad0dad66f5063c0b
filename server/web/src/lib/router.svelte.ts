/**
 * Where the dashboard is. The address is the only state that pages share: it can be linked, and the back button works.
 */
import { address, readState, writeState, type Schema, type Values } from './url';
import { fixedRange, normalRange, resolveRange, type RangeText, type Span } from './range';
import { clock } from './clock.svelte';

class Router {
  url = $state.raw(new URL(location.href));

  constructor() {
    addEventListener('popstate', () => (this.url = new URL(location.href)));
    document.addEventListener('click', (event) => this.click(event));
  }

  get path(): string {
    return this.url.pathname;
  }

  get search(): URLSearchParams {
    return this.url.searchParams;
  }

  get env(): string {
    return this.search.get('env') ?? '';
  }

  get range(): RangeText {
    return normalRange(this.search.get('range'));
  }

  span(): Span {
    return resolveRange(this.range, clock.server());
  }

  go(to: string, how: { replace?: boolean } = {}): void {
    const url = new URL(to, location.href);
    if (url.href === location.href) return;
    const samePage = url.pathname === location.pathname;
    if (how.replace) history.replaceState(null, '', url);
    else history.pushState(null, '', url);
    this.url = url;
    if (!samePage) scrollTo(0, 0);
  }

  /** An address that keeps environment and time range. */
  to(path: string, values: Record<string, string | null | undefined> = {}): string {
    return address(path, values, this.search);
  }

  /** Changes single parameters of the present address. */
  patch(values: Record<string, string | null>, how: { replace?: boolean } = {}): void {
    const next = new URLSearchParams(this.search);
    for (const [name, value] of Object.entries(values)) {
      if (value) next.set(name, value);
      else next.delete(name);
    }
    this.setSearch(next, how);
  }

  setSearch(next: URLSearchParams, how: { replace?: boolean } = {}): void {
    const query = next.toString();
    this.go(query ? `${this.path}?${query}` : this.path, how);
  }

  zoom(span: Span): void {
    this.patch({ range: fixedRange(span) });
  }

  /** Plain clicks on links inside the dashboard stay in the page; all others are the browser's. */
  private click(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
    event.preventDefault();
    this.go(link.href);
  }
}

export const router = new Router();

/** Typed state of a view, kept in the address. */
export function urlState<S extends Schema>(schema: S) {
  return {
    get now(): Values<S> {
      return readState(schema, router.search);
    },
    set(patch: Partial<Values<S>>, how: { replace?: boolean } = {}): void {
      router.setSearch(writeState(schema, router.search, patch), how);
    },
  };
}
