/** All runs and workers as the page knows them: loaded once, then kept by the stream. Views only read it and redraw when it says so. */
import { type IRow, type Json, isObject, numberOf, rowOf } from './rows';
import { type IRun, type ITally, runOf } from './run';
import { goal } from './format';
import { type Connection, type IListener, type StreamHub, getHub } from './stream';

export interface IWorker {
  worker_id: string;
  name: string;
  host: string;
  slots: number;
  free: number;
  device: string;
  devices: string[];
  memory: number; // bytes
  versions: Record<string, string>;
  running: string[];
  unfit: string;
  started_ms: number;
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.filter((each): each is string => typeof each === 'string') : []);

export function workerOf(value: unknown): IWorker | null {
  if (!isObject(value) || typeof value.worker_id !== 'string') {
    return null;
  }
  const versions = Object.entries(isObject(value.versions) ? value.versions : {});
  return {
    worker_id: value.worker_id,
    name: text(value.name) || value.worker_id,
    host: text(value.host),
    slots: numberOf(value.slots, 1),
    free: numberOf(value.free),
    device: text(value.device) || 'cpu',
    devices: texts(value.devices),
    memory: numberOf(value.memory),
    versions: Object.fromEntries(versions.filter((pair): pair is [string, string] => typeof pair[1] === 'string')),
    running: texts(value.running),
    unfit: text(value.unfit),
    started_ms: numberOf(value.started_ms)
  };
}

const ASK_AGAIN = 2_000; // ms; doubled up to 30 s
const LAST_DELAY = 30_000;
const SEARCHED = 500; // runs that one search brings, all that the server gives at once
const ACTIVE = ['QUEUED', 'CLAIMED', 'RUNNING', 'PAUSING', 'PAUSED', 'STOPPING', 'CANCELLING', 'LOST', 'RETRYING'];

/** What can be said of the list as a whole. `refused`: the server is there and does not let us. */
export type Standing = 'loading' | 'live' | 'reconnecting' | 'no-kafka' | 'refused' | 'off';

export class RunsModel implements IListener {
  me = '';
  total = 0;
  connection: Connection = 'idle';
  /** Has the list been answered yet? */
  loaded = false;
  /** What the server said instead of a list. */
  trouble = '';
  brokerThere = true;

  constructor(
    private readonly _limit: () => number,
    private readonly _hub: StreamHub = getHub()
  ) {}

  get runs(): readonly IRun[] {
    return (this._list ??= [...this._runs.values()]);
  }

  get workers(): readonly IWorker[] {
    return [...this._workers.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  get standing(): Standing {
    if (this.connection === 'off') {
      return this._status === 403 ? 'refused' : 'off';
    }
    if (!this.loaded) {
      return this._status === 503 ? 'no-kafka' : this._status === 403 ? 'refused' : 'loading';
    }
    return this.connection === 'open' && this.brokerThere ? 'live' : 'reconnecting';
  }

  run(runId: string): IRun | undefined {
    return this._runs.get(runId);
  }

  now(): number {
    return Date.now() + this._skew;
  }

  /** Follows everything while somebody looks. */
  follow(): void {
    this._unsubscribe ??= this._hub.subscribe(null, this);
  }

  unfollow(): void {
    this._unsubscribe?.();
    this._unsubscribe = null;
    clearTimeout(this._timer);
  }

  /** Calls `listener` after each change; returns the way out. */
  listen(listener: () => void): () => void {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  /** Calls `listener(run)` when a run that was seen alive has ended. */
  onEnd(listener: (run: IRun) => void): () => void {
    this._endListeners.add(listener);
    return () => this._endListeners.delete(listener);
  }

  /** Asks again at once: the button of an error state. */
  reload(): void {
    this._load();
  }

  /** Runs that the page has not loaded, found by the server: "search all". */
  async search(words: string): Promise<void> {
    const response = await this._hub.request(`runs?limit=${SEARCHED}&q=${encodeURIComponent(words)}`);
    if (response.ok) {
      this._takeRuns((await response.json()) as unknown);
      this._changed();
    }
  }

  onEvent(kind: string, data: unknown): void {
    if (kind === 'run') {
      this._hear(data);
    } else if (kind === 'metrics' && isObject(data)) {
      this._count(data);
    } else if (kind === 'worker') {
      this._putWorker(data);
    } else if (kind === 'health' && isObject(data)) {
      this.brokerThere = data.reachable !== false;
      this.trouble = text(data.message);
    } else if (kind === 'reset') {
      this._load();
    } else {
      return;
    }
    this._changed();
  }

  onConnection(connection: Connection, fresh: boolean): void {
    this.connection = connection;
    if (connection === 'off') {
      this._load(); // why?
    } else if (connection === 'open' && (fresh || !this.loaded)) {
      this._load();
    } else if (connection === 'retrying' && !this.loaded) {
      this._load(); // a server without Kafka answers why there is no stream
    }
    this._changed();
  }

  private _load(): void {
    clearTimeout(this._timer);
    this._delay = ASK_AGAIN;
    void this._ask();
  }

  private async _ask(): Promise<void> {
    const turn = ++this._turn;
    this._status = 0;
    try {
      const paths = [`runs?limit=${this._limit()}`, `runs?limit=${SEARCHED}&state=${ACTIVE.join()}`, 'workers'];
      const answers = await Promise.all(paths.map(path => this._hub.request(path)));
      const bodies = await Promise.all(answers.map(answer => answer.json().catch(() => null) as Promise<unknown>));
      if (turn !== this._turn) {
        return;
      }
      this._status = answers[0].status;
      if (answers.every(answer => answer.ok)) {
        this._takeList(bodies[0], bodies[1]);
        this._takeWorkers(bodies[2]);
        return;
      }
      this.trouble = isObject(bodies[0]) ? text(bodies[0].message) : '';
    } catch {
      this.trouble = '';
    }
    if (turn === this._turn && this._unsubscribe && this.connection !== 'off') {
      this._timer = setTimeout(() => void this._ask(), this._delay);
      this._delay = Math.min(2 * this._delay, LAST_DELAY);
    }
    this._changed();
  }

  /** The newest runs, and those that have not ended however old they are. */
  private _takeList(newest: unknown, active: unknown): void {
    const listed = this._takeRuns(newest);
    const going = this._takeRuns(active);
    if (isObject(newest)) {
      this.loaded = true;
      this.trouble = '';
      this.me = text(newest.me);
      this.total = numberOf(newest.total);
      this._floor = this.total > listed.length ? Math.min(...listed.map(run => run.submitted_ms)) : 0;
      this._keepTo(new Set([...listed, ...going].map(run => run.run_id)));
    }
    this._changed();
  }

  private _takeRuns(body: unknown): IRun[] {
    const values: unknown[] = isObject(body) && Array.isArray(body.runs) ? body.runs : [];
    values.forEach(value => this._put(value));
    return values.map(runOf).filter((run): run is IRun => run !== null);
  }

  private _takeWorkers(body: unknown): void {
    if (isObject(body) && Array.isArray(body.workers)) {
      this._workers.clear();
      body.workers.forEach(value => this._putWorker(value));
      this._changed();
    }
  }

  /** Forgets older runs than the list has, which the stream had told of before it came; and after a reset, runs of another log. */
  private _keepTo(named: ReadonlySet<string>): void {
    for (const [runId, run] of this._runs) {
      if (!named.has(runId) && (!run.terminal || run.submitted_ms <= this._floor)) {
        this._runs.delete(runId);
      }
    }
    this._list = null;
  }

  /** A state from the stream. Old runs that were not loaded are told of as well, for pages that show them. */
  private _hear(value: unknown): void {
    const run = runOf(value);
    if (run && (this._runs.has(run.run_id) || !run.terminal || run.submitted_ms > this._floor)) {
      this._put(value);
    }
  }

  private _put(value: unknown): void {
    const run = runOf(value);
    if (!run) {
      return;
    }
    const before = this._runs.get(run.run_id);
    if (before && run.upto < before.upto) {
      return;
    }
    const now = numberOf((value as Json).now_ms);
    this._skew = now ? now - Date.now() : this._skew;
    run.tally ??= before?.tally ?? null;
    if (before?.tally && run.tally && run.starts.length === before.starts.length && before.tally.done > run.tally.done) {
      run.tally = before.tally; // rows have come that this state did not know yet
    }
    this._runs.set(run.run_id, run);
    this.total = Math.max(this.total, this._runs.size);
    this._list = null;
    if (before && !before.terminal && run.terminal) {
      this._endListeners.forEach(listener => listener(run));
    }
  }

  /** Rows between two states: the list moves with every epoch. */
  private _count(data: Json): void {
    const run = this._runs.get(text(data.run_id));
    if (!run || !Array.isArray(data.rows) || numberOf(data.attempt) !== run.starts[run.starts.length - 1]?.n) {
      return;
    }
    const epochs = data.rows.map(row => rowOf(row)).filter((row): row is IRow => row?.type === 'epoch');
    if (epochs.length) {
      this._runs.set(run.run_id, { ...run, tally: epochs.reduce(counted, run.tally ?? NOTHING) });
      this._list = null;
    }
  }

  private _putWorker(value: unknown): void {
    const worker = workerOf(value);
    if (worker && isObject(value)) {
      if (value.gone === true) {
        this._workers.delete(worker.worker_id);
      } else {
        this._workers.set(worker.worker_id, worker);
      }
    }
  }

  private _changed(): void {
    [...this._listeners].forEach(listener => listener());
  }

  private _runs = new Map<string, IRun>();
  private _workers = new Map<string, IWorker>();
  private _list: readonly IRun[] | null = null;
  private _listeners = new Set<() => void>();
  private _endListeners = new Set<(run: IRun) => void>();
  private _unsubscribe: (() => void) | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _delay = ASK_AGAIN;
  private _status = 0;
  private _floor = 0; // ms; runs that were submitted before have not been loaded
  private _turn = 0;
  private _skew = 0;
}

const NOTHING: ITally = { done: 0, metrics: {}, best: {}, seconds: 0, at_ms: 0 };

/** The tally with one more epoch. The pace stays the server's, which knows the last few; until then it is this epoch's. */
export function counted(tally: ITally, row: IRow): ITally {
  if (row.epoch + 1 <= tally.done) {
    return tally;
  }
  const best = { ...tally.best };
  for (const [name, value] of Object.entries(row.metrics)) {
    const wanted = goal(name);
    if (typeof value === 'number' && wanted) {
      const was = best[name];
      if (!was || (wanted === 'max' ? value > was[0] : value < was[0])) {
        best[name] = [value, row.epoch + 1];
      }
    }
  }
  return { done: row.epoch + 1, metrics: row.metrics, best, seconds: tally.seconds || row.seconds, at_ms: row.at_ms };
}
