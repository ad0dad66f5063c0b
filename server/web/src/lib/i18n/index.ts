/** The words of the dashboard. `zh.ts` has the type of `en.ts`: a word that one of them lacks is a type error. */
import { settings } from '../settings.svelte';
import { en, type Catalogue } from './en';
import { zh } from './zh';

export type { Catalogue };
export const catalogues: Record<'en' | 'zh', Catalogue> = { en, zh };

/** The words of the language that is chosen; read in markup, it follows the choice. */
export function t(): Catalogue {
  return catalogues[settings.language];
}
