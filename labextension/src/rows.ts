/** Rows of the training log, as they arrive, and the history that they make (rule 10 of the fold). Everything read here is untrusted. */

import { plain } from './format';

export type Metrics = Record<string, number | null>;

/** `epoch` is 0-based; `step` counts batches done in it. */
export interface IRow {
  type: string;
  attempt: number;
  seq: number;
  epoch: number;
  step: number;
  steps: number | null;
  metrics: Metrics;
  seconds: number;
  at_ms: number;
  text: string; // of a line that the training has written
}

const LINE = 4096; // characters; the worker cuts there too

/** Attempt `n` resumed at (epoch, step). */
export interface IStart {
  n: number;
  epoch: number;
  step: number;
}

const METRICS = 200; // of an epoch
const NAME = 200; // characters of a metric's

export type Json = Record<string, unknown>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function numberOf(value: unknown, fallback = 0): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : fallback;
}

export function metricsOf(value: unknown): Metrics {
  const pairs = isObject(value) ? Object.entries(value).slice(0, METRICS) : [];
  const numbers = pairs.filter((pair): pair is [string, number | null] => pair[1] === null || typeof pair[1] === 'number');
  return Object.fromEntries(numbers.map(([name, v]) => [plain(name, NAME), v]));
}

/** Absent fields have their defaults: the wire leaves defaults out. */
export function rowOf(value: unknown, attempt?: number): IRow | null {
  if (!isObject(value) || typeof value.type !== 'string' || typeof value.seq !== 'number') {
    return null;
  }
  return {
    type: value.type,
    attempt: attempt ?? numberOf(value.attempt, 1),
    seq: value.seq,
    epoch: numberOf(value.epoch),
    step: numberOf(value.step),
    steps: numberOf(value.steps) || null,
    metrics: metricsOf(value.metrics),
    seconds: numberOf(value.seconds),
    at_ms: numberOf(value.at_ms),
    text: typeof value.text === 'string' ? plain(value.text, LINE) : ''
  };
}

/** A row stands unless a later attempt resumed before its place: the place of a finished epoch is the begin of the next one. */
function stands(row: IRow, starts: readonly IStart[]): boolean {
  const [epoch, step] = row.type === 'epoch' ? [row.epoch + 1, 0] : [row.epoch, row.step];
  return starts.every(s => s.n <= row.attempt || epoch < s.epoch || (epoch === s.epoch && step <= s.step));
}

/** The accepted rows of one run, whatever the order and however often they arrive: they are unique by (attempt, seq). */
export class History {
  /** Finished epochs, ascending. */
  get epochs(): readonly IRow[] {
    return (this._epochs ??= [...this._rows.values()]
      .filter(row => stands(row, this._starts))
      .sort((a, b) => a.epoch - b.epoch || a.attempt - b.attempt));
  }

  /** The newest batch of the epoch that is under way. */
  get batch(): IRow | null {
    const row = this._batch;
    const last = this.epochs[this.epochs.length - 1];
    return row && stands(row, this._starts) && (!last || row.epoch > last.epoch) ? row : null;
  }

  add(rows: readonly IRow[]): void {
    for (const row of rows) {
      if (row.type === 'epoch') {
        this._rows.set(`${row.attempt}:${row.seq}`, row);
        this._epochs = null;
      } else if (row.type === 'batch' && isLater(row, this._batch)) {
        this._batch = row;
      }
    }
  }

  restart(starts: readonly IStart[]): void {
    this._starts = starts;
    this._epochs = null;
  }

  clear(): void {
    this._rows.clear();
    this._epochs = this._batch = null;
  }

  private _rows = new Map<string, IRow>();
  private _starts: readonly IStart[] = [];
  private _epochs: IRow[] | null = null;
  private _batch: IRow | null = null;
}

/** The last lines that a run has written, whatever the order in which they arrive. */
export class Lines {
  constructor(private readonly _limit = 2000) {}

  /** Older lines than these have been dropped. */
  get cut(): boolean {
    return this._cut;
  }

  get all(): readonly IRow[] {
    return (this._sorted ??= this._sort().filter(row => stands(row, this._starts)));
  }

  add(rows: readonly IRow[]): void {
    for (const row of rows) {
      if (row.type === 'line') {
        this._rows.set(`${row.attempt}:${row.seq}`, row);
        this._sorted = null;
      }
    }
    if (this._rows.size > 2 * this._limit) {
      const kept = this._sort().slice(-this._limit);
      this._rows = new Map(kept.map(row => [`${row.attempt}:${row.seq}`, row]));
      this._cut = true;
    }
  }

  restart(starts: readonly IStart[]): void {
    this._starts = starts;
    this._sorted = null;
  }

  clear(): void {
    this._rows.clear();
    this._sorted = null;
    this._cut = false;
  }

  private _sort(): IRow[] {
    return [...this._rows.values()].sort((a, b) => a.attempt - b.attempt || a.seq - b.seq);
  }

  private _rows = new Map<string, IRow>();
  private _starts: readonly IStart[] = [];
  private _sorted: readonly IRow[] | null = null;
  private _cut = false;
}

function isLater(row: IRow, than: IRow | null): boolean {
  return !than || row.attempt > than.attempt || (row.attempt === than.attempt && row.seq > than.seq);
}
