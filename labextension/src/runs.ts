/** All runs and workers as the page knows them: loaded once, then kept by the stream. Views only read it and redraw when it says so. */
import { type IRow, type Json, isObject, numberOf, rowOf } from './rows';
import { type IRun, type ITally, runOf } from './run';
import { goal } from './format';
import type { State } from './connection';
import { type IListener, type StreamHub, getHub } from './stream';
import { type IRefusal, refusalOf } from './transport';

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
  code: boolean; // it runs what people wrote themselves
  network: boolean; // its trainings may use it
  cage: string[]; // what else they may not do
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
    started_ms: numberOf(value.started_ms),
    code: value.code === true,
    network: value.network !== false,
    cage: texts(value.cage)
  };
}

const ASK_AGAIN = 2_000; // ms; doubled up to 30 s
const LAST_DELAY = 30_000;
const SEARCHED = 500; // runs that one search brings, all that the server gives at once
const ACTIVE = ['QUEUED', 'CLAIMED', 'RUNNING', 'PAUSING', 'PAUSED', 'STOPPING', 'CANCELLING', 'LOST', 'RETRYING'];

/**
 * What can be said of the list as a whole. `refused`: the server does not let us; `off`: it has no extension, or there is none;
 * `unusable`: it cannot use the Kafka that is there.
 */
export type Standing = 'loading' | 'live' | 'reconnecting' | 'no-kafka' | 'unusable' | 'refused' | 'off';

export class RunsModel implements IListener {
  me = '';
  total = 0;
  connection: State = 'idle';
  /** Has the list been answered yet? */
  loaded = false;
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
    const refusal = this._refused;
    if (refusal?.status === 403) {
      return 'refused';
    }
    if (this.connection === 'off') {
      return 'off';
    }
    if (!this.loaded && refusal?.kind) {
      return refusal.kind === 'BrokerUnreachable' ? 'no-kafka' : 'unusable';
    }
    if (this.connection === 'retrying' || this.connection === 'idle' || !this.brokerThere) {
      return this.loaded || this.connection === 'retrying' ? 'reconnecting' : 'loading';
    }
    return this.loaded ? 'live' : 'loading'; // it connects anew for whatever the page wants more, too
  }

  /** What the server said instead of a list, or of its way to Kafka. */
  get trouble(): string {
    return this._refused?.message || this._brokerTrouble;
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

  /** Loads the list anew. */
  reload(): void {
    this._load();
  }

  /** Asks at once whether there is something by now: somebody looks. */
  hurry(): void {
    if (this.connection === 'open' && this._due) {
      this._load();
    }
    this._hub.hurry();
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
      this._brokerTrouble = text(data.message);
    } else if (kind === 'reset') {
      this._load();
    } else {
      return;
    }
    this._changed();
  }

  onConnection(connection: State, fresh: boolean): void {
    this.connection = connection;
    if (connection === 'open' && (fresh || this._due)) {
      this._load();
    }
    this._changed();
  }

  private _load(): void {
    clearTimeout(this._timer);
    this._delay = ASK_AGAIN;
    this._due = true;
    void this._ask();
  }

  private async _ask(): Promise<void> {
    const turn = ++this._turn;
    let refusal: IRefusal | null = null;
    try {
      const paths = [`runs?limit=${this._limit()}`, `runs?limit=${SEARCHED}&state=${ACTIVE.join()}`, 'workers'];
      const answers = await Promise.all(paths.map(path => this._hub.request(path)));
      const bad = answers.find(answer => !answer.ok);
      refusal = bad ? await refusalOf(bad) : null;
      const bodies = bad ? [] : await Promise.all(answers.map(answer => answer.json() as Promise<unknown>));
      if (turn === this._turn && !bad) {
        this._due = false;
        this._refusal = null;
        this._takeList(bodies[0], bodies[1]);
        this._takeWorkers(bodies[2]);
        return;
      }
    } catch {
      // no answer at all
    }
    if (turn === this._turn) {
      this._refusal = refusal;
      if (this._unsubscribe && this.connection === 'open') {
        this._timer = setTimeout(() => void this._ask(), this._delay);
        this._delay = Math.min(2 * this._delay, LAST_DELAY);
      }
      this._changed();
    }
  }

  private get _refused(): IRefusal | null {
    return this._hub.refusal ?? this._refusal;
  }

  /** The newest runs, and those that have not ended however old they are. */
  private _takeList(newest: unknown, active: unknown): void {
    const listed = this._takeRuns(newest);
    const going = this._takeRuns(active);
    if (isObject(newest)) {
      this.loaded = true;
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
  private _refusal: IRefusal | null = null; // instead of the list
  private _brokerTrouble = '';
  private _due = true; // the list has not been loaded since it had to be
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
