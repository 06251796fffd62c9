/** One run as the page knows it: the server's folded state (replaced whole), the rows (merged), and how sure we are of both. */
import { History, type IRow, type IStart, type Json, type Metrics, isObject, metricsOf, numberOf, rowOf } from './rows';
import { type Connection, type IListener, type StreamHub, getHub } from './stream';

export interface IRunError {
  reason: string;
  error: string;
  message: string;
  traceback: string;
  attempt: number;
  worker: string;
}

/** `epoch` is 0-based; `step` counts batches done in it. */
export interface IPlace {
  epoch: number;
  step: number;
}

/** The newest change that the worker has applied, and where. */
export interface IApplied extends IPlace {
  settings: Json;
}

/** The card state of docs/architecture.md. */
export interface IRun {
  run_id: string;
  short: string;
  name: string;
  owner: string;
  state: string;
  attempt: number;
  starts: IStart[];
  epochs: number;
  initial_epoch: number;
  epochs_done: number;
  worker: string;
  device: string;
  submitted_ms: number;
  started_ms: number;
  ended_ms: number;
  heartbeat_ms: number;
  queue: number;
  waiting: string;
  warning: string; // of the end that its age will bring
  error: IRunError | null;
  ended_by: string;
  wish: string;
  process: string; // of a cancelled run: "none", "gone" or "cut off"
  checkpoint: IPlace | null;
  applied: IApplied | null;
  retry_of: string;
  stopped_early: boolean;
  metrics: Metrics;
  files: string[];
  read_only: boolean;
  terminal: boolean;
  upto: number;
}

export type Verb = 'stop' | 'pause' | 'resume' | 'cancel' | 'retry';

const MISSING_AFTER = 3; // answers "404" before a run counts as unknown: the server may be some milliseconds behind the submit
const ASK_AGAIN = 1_000; // ms; doubled up to 15 s

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** The short form of a run id that still says which run: "digits-3f2a9c01b7d4" → "digits-3f2a". */
export function shortId(runId: string): string {
  return runId.slice(0, runId.lastIndexOf('-') + 5);
}

export function runOf(value: unknown): IRun | null {
  if (!isObject(value) || typeof value.run_id !== 'string' || typeof value.state !== 'string') {
    return null;
  }
  const starts = Array.isArray(value.starts) ? value.starts.filter(isObject) : [];
  return {
    run_id: value.run_id,
    short: text(value.short),
    name: text(value.name) || value.run_id,
    owner: text(value.owner),
    state: value.state,
    attempt: numberOf(value.attempt),
    starts: starts.map(s => ({ n: numberOf(s.n), epoch: numberOf(s.epoch), step: numberOf(s.step) })),
    epochs: numberOf(value.epochs),
    initial_epoch: numberOf(value.initial_epoch),
    epochs_done: numberOf(value.epochs_done),
    worker: text(value.worker),
    device: text(value.device),
    submitted_ms: numberOf(value.submitted_ms),
    started_ms: numberOf(value.started_ms),
    ended_ms: numberOf(value.ended_ms),
    heartbeat_ms: numberOf(value.heartbeat_ms),
    queue: numberOf(value.queue),
    waiting: text(value.waiting),
    warning: text(value.warning),
    error: errorOf(value.error),
    ended_by: text(value.ended_by),
    wish: text(value.wish),
    process: text(value.process),
    checkpoint: placeOf(value.checkpoint),
    applied: appliedOf(value.applied),
    retry_of: text(value.retry_of),
    stopped_early: value.stopped_early === true,
    metrics: metricsOf(value.metrics),
    files: Array.isArray(value.files) ? value.files.filter(f => typeof f === 'string') : [],
    read_only: value.read_only === true,
    terminal: value.terminal === true,
    upto: numberOf(value.upto)
  };
}

function placeOf(value: unknown): IPlace | null {
  return isObject(value) ? { epoch: numberOf(value.epoch), step: numberOf(value.step) } : null;
}

function appliedOf(value: unknown): IApplied | null {
  const place = placeOf(value);
  return place && isObject(value) ? { ...place, settings: isObject(value.settings) ? value.settings : {} } : null;
}

function errorOf(value: unknown): IRunError | null {
  return isObject(value)
    ? {
        reason: text(value.reason),
        error: text(value.error),
        message: text(value.message),
        traceback: text(value.traceback),
        attempt: numberOf(value.attempt),
        worker: text(value.worker)
      }
    : null;
}

export class RunModel implements IListener {
  run: IRun | null = null;
  readonly history = new History();
  connection: Connection = 'idle';
  /** Does the server know the run? null: not answered yet. */
  known: boolean | null = null;
  /** Does the server reach Kafka? */
  brokerThere = true;

  constructor(
    readonly runId: string,
    private readonly _hub: StreamHub = getHub()
  ) {}

  /** Whether what is shown may be old because the way to Kafka is broken: between page and server, or behind it. */
  get away(): boolean {
    return this.connection === 'retrying' || !this.brokerThere;
  }

  /** Connects to the page's stream. Every later change calls `changed`. */
  follow(changed: () => void): void {
    this._changed = changed;
    this._unsubscribe = this._hub.subscribe(this.runId, this);
  }

  dispose(): void {
    this._unsubscribe?.();
    this._unsubscribe = null;
    clearTimeout(this._timer);
    this._changed = () => undefined;
  }

  /** The server's clock: ages are differences of times from one machine. */
  now(): number {
    return Date.now() + this._skew;
  }

  put(value: unknown): void {
    const run = runOf(value);
    if (!run || run.run_id !== this.runId || (this.run && run.upto < this._atLeast)) {
      return;
    }
    const now = numberOf((value as Json).now_ms);
    this._skew = now ? now - Date.now() : this._skew;
    this.run = run;
    this._atLeast = run.upto;
    this.history.restart(run.starts);
    this._changed();
  }

  add(rows: unknown, attempt?: number): void {
    if (Array.isArray(rows)) {
      this.history.add(rows.map(row => rowOf(row, attempt)).filter((row): row is IRow => row !== null));
      this._changed();
    }
  }

  /**
   * Asks for it; of a retry, the id of the new run. Raises with what the server said; the new state comes over the stream. Another
   * person's run is asked twice.
   */
  async ask(verb: Verb): Promise<string> {
    const asked = { method: 'POST', body: JSON.stringify({ force: this._warned === verb }) };
    const response = await this._hub.request(`runs/${encodeURIComponent(this.runId)}/${verb}`, asked);
    if (!response.ok) {
      const body: unknown = await response.json().catch(() => null);
      if (isObject(body) && body.error === 'NotYourRun') {
        this._warned = verb;
        throw new Error(`this run belongs to ${this.run?.owner}. Click again if you mean it.`);
      }
      throw new Error(isObject(body) && typeof body.message === 'string' ? body.message : `HTTP ${response.status}`);
    }
    const body: unknown = verb === 'retry' ? await response.json().catch(() => null) : null;
    return isObject(body) ? text(body.run_id) : '';
  }

  onEvent(kind: string, data: unknown): void {
    if (kind === 'run') {
      this.put(data);
      if (!this.known) {
        this._load();
      }
    } else if (kind === 'metrics' && isObject(data)) {
      this.add(data.rows, numberOf(data.attempt, 1));
    } else if (kind === 'health' && isObject(data)) {
      this.brokerThere = data.reachable !== false;
      this._changed();
    } else if (kind === 'reset') {
      this.history.clear();
      this._atLeast = 0; // the old state stays on the page until the new one is here, whatever its place in the log
      this._load();
    }
  }

  onConnection(connection: Connection, fresh: boolean): void {
    this.connection = connection;
    if (connection === 'open' && (fresh || !this.known)) {
      this._load();
    }
    this._changed();
  }

  private _load(): void {
    clearTimeout(this._timer);
    this._asked = 0;
    void this._ask();
  }

  /** Everything so far. Events that arrive meanwhile do no harm: states replace by `upto`, rows merge by (attempt, seq). */
  private async _ask(): Promise<void> {
    const turn = ++this._turn;
    let status = 0;
    let body: unknown = null;
    try {
      const response = await this._hub.request(`runs/${encodeURIComponent(this.runId)}`);
      status = response.status;
      body = response.ok ? await response.json() : null;
    } catch {
      status = 0; // no answer at all
    }
    if (turn !== this._turn || !this._unsubscribe) {
      return;
    }
    if (isObject(body)) {
      this.known = true;
      this.put(body.run);
      this.add(body.rows);
      return;
    }
    this._asked += 1;
    if (status === 400 || (status === 404 && this._asked >= MISSING_AFTER)) {
      this.known = false;
      this._changed();
    } else if (this.connection === 'open') {
      this._timer = setTimeout(() => void this._ask(), Math.min(ASK_AGAIN * 2 ** (this._asked - 1), 15_000));
    }
  }

  private _changed: () => void = () => undefined;
  private _unsubscribe: (() => void) | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _warned: Verb | null = null;
  private _skew = 0;
  private _atLeast = 0;
  private _turn = 0;
  private _asked = 0;
}
