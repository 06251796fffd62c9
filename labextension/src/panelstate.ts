/** What a person has chosen to see: kept over reloads, in JupyterLab's own state. What is read back is untrusted. */
import { type Json, isObject } from './rows';
import { SORTS, type Sort } from './listing';

export const PAGES = ['runs', 'queue', 'workers'] as const;
export type Page = (typeof PAGES)[number];

export interface IPanelState {
  page: Page;
  /** The run whose detail is shown in place of the list. */
  open: string;
  /** The runs that are compared in place of the list. */
  compared: string[];
  text: string;
  mine: boolean;
  sort: Sort;
  hidden: string[];
  /** Sections of the detail that are unfolded. */
  unfolded: string[];
}

const START: IPanelState = {
  page: 'runs',
  open: '',
  compared: [],
  text: '',
  mine: false,
  sort: 'newest',
  hidden: [],
  unfolded: ['log', 'parameters']
};

const LIMIT = 2000; // hidden runs that are remembered
const WORDS = 500; // characters of a filter

function strings(value: unknown, fallback: readonly string[]): string[] {
  return Array.isArray(value) ? value.filter((each): each is string => typeof each === 'string').slice(-LIMIT) : [...fallback];
}

/** The state in `value`, as far as it holds one. */
export function stateOf(value: unknown): IPanelState {
  const found = isObject(value) ? value : {};
  const text = (name: string) => (typeof found[name] === 'string' ? found[name].slice(0, WORDS) : '');
  return {
    page: PAGES.find(page => page === found.page) ?? START.page,
    open: text('open'),
    compared: strings(found.compared, []),
    text: text('text'),
    mine: found.mine === true,
    sort: SORTS.find(sort => sort === found.sort) ?? START.sort,
    hidden: strings(found.hidden, []),
    unfolded: strings(found.unfolded, START.unfolded)
  };
}

/** Where it is kept. JupyterLab's IStateDB is one. */
export interface IKeeper {
  fetch(id: string): Promise<unknown>;
  save(id: string, value: Json): Promise<unknown>;
}

const ID = 'kafka-jupyter:panel';

export class PanelState {
  now: IPanelState = stateOf(null);

  constructor(private readonly _keeper: IKeeper | null) {}

  /** What was kept, except for what the person has changed meanwhile. */
  async restore(): Promise<void> {
    const found = await this._keeper?.fetch(ID).catch(() => null);
    this.now = { ...stateOf(found), ...this._changed };
    this._tell();
  }

  update(change: Partial<IPanelState>): void {
    this._changed = { ...this._changed, ...change };
    this.now = { ...this.now, ...change };
    this._tell();
    void this._keeper?.save(ID, { ...this.now }).catch(() => undefined); // it gathers what comes in a row by itself
  }

  listen(listener: () => void): () => void {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  private _tell(): void {
    [...this._listeners].forEach(listener => listener());
  }

  private _changed: Partial<IPanelState> = {};
  private _listeners = new Set<() => void>();
}
