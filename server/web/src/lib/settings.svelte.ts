/** What a person chose for this browser: theme, language. Kept in local storage; `boot.js` reads the same keys before the first paint. */
import type { Language } from './format';

export type Theme = 'system' | 'light' | 'dark';
export const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

function stored(key: string): string | null {
  try {
    return localStorage.getItem(`shipwatch.${key}`);
  } catch {
    return null;
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(`shipwatch.${key}`, value);
  } catch {
    // Chosen for this page only.
  }
}

class Settings {
  theme = $state<Theme>(THEMES.find((one) => one === stored('theme')) ?? 'system');
  language = $state<Language>(/^zh/i.test(stored('language') ?? navigator.language ?? '') ? 'zh' : 'en');
  private systemDark = $state(matchMedia('(prefers-color-scheme: dark)').matches);

  constructor() {
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', (event) => (this.systemDark = event.matches));
  }

  get dark(): boolean {
    return this.theme === 'dark' || (this.theme === 'system' && this.systemDark);
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    store('theme', theme);
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  setLanguage(language: Language): void {
    this.language = language;
    store('language', language);
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  }
}

export const settings = new Settings();
