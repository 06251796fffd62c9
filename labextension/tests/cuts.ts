/**
 * The page's own stream over a connection that is cut at random bytes: `node cuts.mjs '{"port": 8888, "root": "/", "token": "…", "cuts": 300, "seed": 7}'`.
 *
 * Speaks with tests/support/cuts.py in lines of JSON. Out: `{"cuts": n}` every few cuts, from the first event on. In, once these are enough and
 * all is written: the rows that must have come, and the finished epochs that count. Out: what came of it. The last lines tell both.
 */
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

import { History, type IRow, isObject, rowOf } from '../src/rows';
import { runOf } from '../src/run';
import { type IListener, StreamHub } from '../src/stream';

interface ITask {
  port: number;
  root: string;
  token: string;
  cuts: number;
  seed: number;
}

/** Rows as `[run_id, attempt, seq]`; of each run `[attempt, seq]` of the finished epochs that count. */
interface ITruth {
  rows: [string, number, number][];
  epochs: Record<string, [number, number][]>;
}

const TOLD_EVERY = 5; // cuts
const SILENT = 25; // ms without a byte, at most, before a connection is cut that nothing more comes over
const LARGEST = 4.5; // decimal digits of the bytes after which a connection is cut
const IN_HEAD = 0.05; // of the connections are cut in what comes first, mostly before the body
const PATIENCE = 60_000; // ms without anything new before what is missing counts as missing

function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Passes bytes on, and cuts: after a number of bytes by chance or a silence, in order or with a reset. */
class Cutter {
  made = 0;
  cutting = false;

  constructor(
    private readonly _task: ITask,
    private readonly _told: (made: number) => void
  ) {
    this._roll = dice(_task.seed);
  }

  listen(): Promise<number> {
    const server = createServer(client => this._pass(client));
    return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
  }

  private _pass(client: Socket): void {
    const server = connect(this._task.port, '127.0.0.1');
    const close = () => [client, server].forEach(socket => socket.destroy());
    [client, server].forEach(socket => socket.setNoDelay(true).on('error', close).on('close', close));
    client.on('data', data => server.write(data));
    let left = 0;
    let silence: ReturnType<typeof setTimeout> | undefined;
    server.once('data', data => (left = this._roll() < IN_HEAD ? this._upTo(data.length) : headOf(data) + this._size()));
    server.on('data', data => {
      clearTimeout(silence);
      if (!this.cutting) {
        client.write(data);
        return;
      }
      const part = data.subarray(0, left);
      left -= part.length;
      client.write(part, () => {
        if (left === 0) {
          this._cut(client, close);
        }
      });
      silence = setTimeout(() => this._cut(client, close), this._roll() * SILENT);
    });
    client.on('close', () => clearTimeout(silence));
  }

  private _cut(client: Socket, close: () => void): void {
    if (client.destroyed || !this.cutting) {
      return;
    }
    if (this._roll() < 0.5) {
      client.resetAndDestroy();
    }
    close();
    this.made += 1;
    if (this.made === this._task.cuts) {
      this.cutting = false;
    }
    if (this.made % TOLD_EVERY === 0 || !this.cutting) {
      this._told(this.made);
    }
  }

  /** Small cuts are as likely as large ones: from one byte to `LARGEST` digits. */
  private _size(): number {
    return Math.floor(10 ** (this._roll() * LARGEST));
  }

  private _upTo(limit: number): number {
    return 1 + Math.floor(this._roll() * limit);
  }

  private readonly _roll: () => number;
}

/** The bytes of an answer before its body; they come at once. */
function headOf(data: Buffer): number {
  return data.indexOf('\r\n\r\n') + 4;
}

/** What a page has: each row counted as it comes, and the history of each run. */
class Page implements IListener {
  readonly times = new Map<string, number>();
  readonly histories = new Map<string, History>();
  readonly ended = new Set<string>();
  resets = 0;
  begun: () => void = () => undefined;

  onEvent(kind: string, data: unknown): void {
    if (kind === 'reset') {
      this.resets += 1;
    } else if (kind === 'run') {
      const run = runOf(data);
      this._history(run!.run_id).restart(run!.starts);
      if (run!.terminal) {
        this.ended.add(run!.run_id);
      }
    } else if (['metrics', 'progress', 'log'].includes(kind) && isObject(data)) {
      const [runId, attempt] = [data.run_id as string, data.attempt as number];
      const rows = (data.rows as unknown[]).map(row => rowOf(row, attempt)).filter((row): row is IRow => row !== null);
      for (const row of rows) {
        const name = `${runId} ${attempt} ${row.seq}`;
        this.times.set(name, (this.times.get(name) ?? 0) + 1);
      }
      this._history(runId).add(rows);
    } else if (kind === 'health') {
      setImmediate(() => this.begun()); // the cursor of this event counts when it has been dealt with
    }
  }

  onConnection(): void {
    return;
  }

  private _history(runId: string): History {
    const known = this.histories.get(runId) ?? new History();
    this.histories.set(runId, known);
    return known;
  }
}

async function whole(page: Page, truth: ITruth): Promise<void> {
  let [had, since] = [-1, Date.now()];
  const isAll = () => truth.rows.every(row => page.times.has(row.join(' '))) && Object.keys(truth.epochs).every(id => page.ended.has(id));
  while (!isAll() && Date.now() - since < PATIENCE) {
    if (page.times.size + page.ended.size > had) {
      [had, since] = [page.times.size + page.ended.size, Date.now()];
    }
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

function told(page: Page, truth: ITruth): Record<string, number> {
  const due = new Set(truth.rows.map(row => row.join(' ')));
  // In no order: the page's is by epoch, the server's by attempt, and in the storm attempts write epochs that are none of theirs.
  const plain = (rows: [number, number][]) => JSON.stringify(rows.map(row => row.join(' ')).sort());
  const shown = (id: string) => plain((page.histories.get(id)?.epochs ?? []).map(row => [row.attempt, row.seq]));
  return {
    rows: due.size,
    missing: [...due].filter(name => !page.times.has(name)).length,
    double: [...page.times.values()].filter(times => times > 1).length,
    strange: [...page.times.keys()].filter(name => !due.has(name)).length,
    runs: Object.keys(truth.epochs).length,
    otherHistories: Object.entries(truth.epochs).filter(([id, rows]) => shown(id) !== plain(rows)).length,
    resets: page.resets
  };
}

/** Ends the process when nothing has happened for too long: whoever reads its lines would wait for ever. */
function watch(happened: () => number): void {
  let [had, since] = [happened(), Date.now()];
  setInterval(() => {
    if (happened() !== had) {
      [had, since] = [happened(), Date.now()];
    } else if (Date.now() - since > 2 * PATIENCE) {
      console.error(`nothing has happened for ${(2 * PATIENCE) / 1000} s`);
      process.exit(1);
    }
  }, 1000).unref();
}

const task = JSON.parse(process.argv[2]) as ITask;
const say = (line: Record<string, number>) => process.stdout.write(`${JSON.stringify(line)}\n`);
const cutter = new Cutter(task, made => say({ cuts: made }));
const port = await cutter.listen();
const hub = new StreamHub();
const page = new Page();
page.begun = () => {
  page.begun = () => undefined;
  cutter.cutting = true;
  say({ cuts: 0 });
};
hub.useTransport({
  kind: 'cut',
  request: (path, init) => {
    const headers = new Headers(init.headers);
    headers.set('Authorization', `token ${task.token}`);
    const all = path.replace('?detail=', ''); // batches and lines of all runs too, which a page without cards does without
    return fetch(`http://127.0.0.1:${port}${task.root}${all}`, { ...init, headers });
  }
});
hub.subscribe(null, page);
watch(() => hub.stats.events + cutter.made);
const truth = JSON.parse(await new Promise<string>(resolve => createInterface(process.stdin).once('line', resolve))) as ITruth;
await whole(page, truth);
say({ cuts: cutter.made, resumes: hub.stats.resumes, ...told(page, truth) });
process.exit(0);
