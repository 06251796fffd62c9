/**
 * The words of the page in the person's language. The plugin hands JupyterLab's translation over; without it they are English.
 *
 * It lives on globalThis, as the stream does: plugin and widget are separate bundles, and a page has one language.
 */
type Word = string | number;

export interface IWords {
  __(text: string, ...args: Word[]): string;
  _n(singular: string, plural: string, n: number, ...args: Word[]): string;
}

const KEY = Symbol.for('kafka_jupyter.words/1');
const page = globalThis as unknown as Record<symbol, IWords | undefined>;

/** As JupyterLab's own: `%1` is the first argument. */
function filled(text: string, args: readonly Word[]): string {
  return text.replace(/%(\d)/g, (_, i: string) => String(args[Number(i) - 1] ?? ''));
}

const english: IWords = {
  __: (text, ...args) => filled(text, args),
  _n: (singular, plural, n, ...args) => filled(n === 1 ? singular : plural, [n, ...args])
};

export function useWords(words: IWords): void {
  page[KEY] = words;
}

/** Asked at every use: whoever imports this may have been loaded before the language was known. */
export const trans: IWords = {
  __: (text, ...args) => (page[KEY] ?? english).__(text, ...args),
  _n: (singular, plural, n, ...args) => (page[KEY] ?? english)._n(singular, plural, n, ...args)
};
