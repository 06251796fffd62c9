/** One run as the page knows it: the server's folded state (replaced whole), the rows (merged), and how sure we are of both. */
import { Refused, ask } from './ask';
import { History, type IRow, type Json, Lines, isObject, numberOf, rowOf } from './rows';
import { type IRun, type Verb, runOf } from './run';
import type { State } from './connection';
import { type IListener, type StreamHub, getHub } from './stream';
import { trans } from './words';

const MISSING_AFTER = 3; // answers "404" before a run counts as unknown: the server may be some milliseconds behind the submit
const ASK_AGAIN = 1_000; // ms; doubled up to 15 s

export class RunModel implements IListener {
  run: IRun | null = null;
  readonly history = new History();
  /** What it has written; followed only where somebody wants to read it. */
  readonly lines = new Lines();
  connection: State = 'idle';
  /** Does the server know the run? null: not answered yet. */
  known: boolean | null = null;
  /** Does the server reach Kafka? */
  brokerThere = true;

  constructor(
    readonly runId: string,
    private readonly _hub: StreamHub = getHub(),
    private readonly _withLines = false
  ) {}

  /** Whether what is shown may be old because the way to Kafka is broken: between page and server, or behind it. */
  get away(): boolean {
    return this.connection === 'retrying' || !this.brokerThere;
  }

  /** Connects to the page's stream. Every later change calls `changed`; `calm`: nobody waits for it (batches, lines, a heartbeat). */
  follow(changed: (calm?: boolean) => void): void {
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
    const { run: before } = this;
    this.run = run;
    this._atLeast = run.upto;
    this.history.restart(run.starts);
    this.lines.restart(run.starts);
    this._changed(run.state === before?.state && run.attempt === before.attempt);
  }

  add(rows: unknown, attempt?: number, calm = false): void {
    if (Array.isArray(rows)) {
      const read = rows.map(row => rowOf(row, attempt)).filter((row): row is IRow => row !== null);
      this.history.add(read);
      if (this._withLines) {
        this.lines.add(read);
      }
      this._changed(calm);
    }
  }

  /**
   * Asks for it; of a retry, the id of the new run. Raises with what the server said; the new state comes over the stream. Another
   * person's run is asked twice.
   */
  async ask(verb: Verb): Promise<string> {
    try {
      const answer = await ask(this._hub, this.runId, verb, { force: this._warned === verb });
      return verb === 'retry' && typeof answer.run_id === 'string' ? answer.run_id : '';
    } catch (error) {
      if (error instanceof Refused && error.kind === 'NotYourRun') {
        this._warned = verb;
        throw new Error(trans.__('this run belongs to %1. Click again if you mean it.', this.run?.owner ?? ''));
      }
      throw error;
    }
  }

  onEvent(kind: string, data: unknown): void {
    if (kind === 'run') {
      this.put(data);
      if (!this.known) {
        this._load();
      }
    } else if (['metrics', 'progress', 'log'].includes(kind) && isObject(data)) {
      this.add(data.rows, numberOf(data.attempt, 1), kind !== 'metrics');
    } else if (kind === 'health' && isObject(data)) {
      this.brokerThere = data.reachable !== false;
      this._changed();
    } else if (kind === 'reset') {
      this.history.clear();
      this.lines.clear();
      this._atLeast = 0; // the old state stays on the page until the new one is here, whatever its place in the log
      this.known = null;
      this._load();
    }
  }

  onConnection(connection: State, fresh: boolean): void {
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

  private _changed: (calm?: boolean) => void = () => undefined;
  private _unsubscribe: (() => void) | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _warned: Verb | null = null;
  private _skew = 0;
  private _atLeast = 0;
  private _turn = 0;
  private _asked = 0;
}
