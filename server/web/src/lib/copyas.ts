/** What a page shows, as commands for a shell. Pure. */

/** One argument of a POSIX shell. */
export function shell(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'\\''`)}'`;
}

/** `path` begins with `/`; the token comes from the environment, so that none ends in a shell's history. */
export function curl(origin: string, path: string, form: Record<string, string> = {}): string {
  const data = Object.entries(form).map(([name, value]) => ` --data-urlencode ${shell(`${name}=${value}`)}`).join('');
  return `curl -fsS -H "Authorization: Bearer $SHIPWATCH_TOKEN"${data ? ' -G' : ''} ${shell(origin + path)}${data}`;
}

export function cli(...words: (string | null)[]): string {
  return ['shipwatch', ...words.filter((word) => word !== null).map(shell)].join(' ');
}
