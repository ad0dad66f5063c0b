/** Keys of the whole dashboard. Never while somebody types, never with a modifier (but for Ctrl-K). */

interface Actions {
  search(): void;
  help(): void;
  time(): void;
  go(path: string): void;
}

/** After `g`. */
export const PLACES: Record<string, string> = { o: '/', h: '/hosts', l: '/logs', e: '/explore', a: '/alerts', d: '/deploys', s: '/settings' };
const SEQUENCE_MS = 1500;

export function shortcuts(actions: Actions): () => void {
  let leader = 0;
  const pressed = (event: KeyboardEvent) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === 'k') {
      event.preventDefault();
      return actions.search();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyping(event.target) || document.querySelector('dialog[open]')) return;
    const place = PLACES[event.key];
    if (leader && event.timeStamp - leader < SEQUENCE_MS && place) {
      leader = 0;
      event.preventDefault();
      return actions.go(place);
    }
    leader = event.key === 'g' ? event.timeStamp : 0;
    const action = { '/': actions.search, '?': actions.help, t: actions.time }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  addEventListener('keydown', pressed);
  return () => removeEventListener('keydown', pressed);
}

export function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
