/** What a card says about a run: pure functions of state, history and time. */
import { ago, duration, goal, metric, ordinal, pace, stateName } from './format';
import { type IApplied, type IPlace, type IRun, type Verb, shortId } from './run';
import type { History, IRow } from './rows';
import { trans } from './words';

export interface IMetricLine {
  name: string;
  last: number | null | undefined;
  best: number | null;
  bestEpoch: number; // as a person counts; 0 where neither more nor less is better
  star: boolean;
}

/** One line a metric, in the order of Keras; the star marks the best value of the one that matters. */
export function metricLines(epochs: readonly IRow[]): IMetricLine[] {
  const last = epochs[epochs.length - 1];
  const names = [...new Set(epochs.flatMap(row => Object.keys(row.metrics)))];
  const star = names.includes('val_loss') ? 'val_loss' : 'loss';
  return names.map(name => ({ name, last: last.metrics[name], ...best(name, epochs), star: name === star }));
}

function best(name: string, epochs: readonly IRow[]): { best: number | null; bestEpoch: number } {
  const sign = { max: 1, min: -1 }[goal(name) ?? 'min'];
  let found: { best: number | null; bestEpoch: number } = { best: null, bestEpoch: 0 };
  for (const row of goal(name) ? epochs : []) {
    const value = row.metrics[name];
    if (typeof value === 'number' && (found.best === null || sign * value > sign * found.best)) {
      found = { best: value, bestEpoch: row.epoch + 1 };
    }
  }
  return found;
}

/** The result in one line: the metric people ask for first, then the validation loss. */
export function headline(lines: readonly IMetricLine[]): IMetricLine[] {
  const scored = lines.filter(line => line.best !== null);
  const first =
    scored.find(line => line.name.startsWith('val_') && goal(line.name) === 'max') ??
    scored.find(line => line.name === 'val_loss') ??
    scored.find(line => goal(line.name) === 'max') ??
    scored.find(line => line.name === 'loss') ??
    scored[0];
  const second = scored.find(line => line.name === 'val_loss') ?? scored.find(line => line.name === 'loss');
  return [first, second].filter((line, i, all): line is IMetricLine => !!line && all.indexOf(line) === i);
}

/** Seconds of an epoch: the middle one of the last five, so that the first (it compiles) and hiccups do not count. */
export function secondsPerEpoch(epochs: readonly IRow[]): number {
  const seconds = epochs
    .slice(-5)
    .map(row => row.seconds)
    .filter(s => s > 0)
    .sort((a, b) => a - b);
  return seconds.length ? seconds[Math.floor(seconds.length / 2)] : 0;
}

export interface IProgress {
  done: number; // finished epochs, those before initial_epoch included
  part: number; // of the epoch under way, 0..1
  fraction: number; // of all, 0..1
  batch: IRow | null;
}

export function progress(run: IRun, history: History): IProgress {
  const last = history.epochs[history.epochs.length - 1];
  const done = Math.max(run.epochs_done, run.initial_epoch, last ? last.epoch + 1 : 0);
  const batch = run.terminal ? null : history.batch;
  const part = batch?.steps ? Math.min(1, batch.step / batch.steps) : 0;
  const all = Math.max(1, run.epochs - run.initial_epoch);
  const fraction = run.state === 'SUCCEEDED' ? 1 : Math.min(1, Math.max(0, (done - run.initial_epoch + part) / all));
  return { done, part, fraction, batch };
}

/** ms until the last epoch should be over; null where nothing can be said yet. */
export function timeLeft(run: IRun, history: History, now: number): number | null {
  const { done, part, fraction } = progress(run, history);
  const seconds = secondsPerEpoch(history.epochs);
  if (seconds) {
    const last = history.epochs[history.epochs.length - 1];
    const underWay = part || Math.min(0.95, Math.max(0, now - last.at_ms) / (seconds * 1000));
    return Math.max(0, (run.epochs - done - underWay) * seconds * 1000);
  }
  const spent = now - run.started_ms;
  return fraction > 0.01 && run.started_ms && spent > 3000 ? (spent * (1 - fraction)) / fraction : null;
}

const SLOW_EPOCH = 5; // seconds; only then a person reads the batches

/** Right of the name: how far it is. */
export function when(run: IRun, history: History, now: number): string {
  const { done, batch } = progress(run, history);
  if (run.state === 'QUEUED') {
    return run.queue > 0 ? trans.__('%1 in the queue', ordinal(run.queue)) : trans.__('queued');
  }
  if (run.state === 'SUCCEEDED') {
    const all = trans._n('%1 epoch', '%1 epochs', done);
    const epochs = done < run.epochs ? trans._n('%2 of %1 epoch', '%2 of %1 epochs', run.epochs, done) : all;
    const spent = run.started_ms && run.ended_ms ? trans.__('%1 in %2', epochs, duration(run.ended_ms - run.started_ms)) : epochs;
    return [spent, run.stopped_early ? trans.__('stopped early') : ''].filter(Boolean).join(' · ');
  }
  const epoch = (n: number) => (run.epochs ? trans.__('epoch %1 of %2', n, run.epochs) : trans.__('epoch %1', n));
  if (run.terminal) {
    const ran = run.started_ms && run.ended_ms;
    const spent = ran ? trans.__('after %1', duration(run.ended_ms - run.started_ms)) : trans.__('before it began');
    return done ? `${epoch(done)} · ${spent}` : spent;
  }
  const pace = secondsPerEpoch(history.epochs);
  const parts = [epoch(Math.max(1, done))];
  if (batch && (!pace || pace >= SLOW_EPOCH)) {
    parts[0] = epoch(batch.epoch + 1);
    parts.push(batch.steps ? trans.__('batch %1 of %2', batch.step, batch.steps) : trans.__('batch %1', batch.step));
  }
  const left = run.state === 'RUNNING' ? timeLeft(run, history, now) : null;
  if (left !== null) {
    parts.push(trans.__('%1 left', duration(left + 999)));
  }
  return run.attempt ? parts.join(' · ') : trans._n('%1 epoch', '%1 epochs', run.epochs);
}

const RETRYABLE = ['FAILED', 'CANCELLED', 'DEAD'];

/** What a person can ask for now, in the order of the buttons. */
export function verbsOf(run: IRun): Verb[] {
  if (run.read_only || run.state === 'CANCELLING') {
    return [];
  }
  if (run.terminal) {
    return RETRYABLE.includes(run.state) ? ['retry'] : [];
  }
  if (run.wish === 'stop') {
    return ['cancel'];
  }
  const pausing = run.state === 'PAUSED' || run.state === 'PAUSING';
  const stop: Verb[] = run.state === 'RUNNING' || (run.checkpoint && run.state !== 'PAUSING') ? ['stop'] : [];
  return [...stop, pausing ? 'resume' : 'pause', 'cancel'];
}

/** "after epoch 4", "at epoch 5, batch 12" */
function place(at: IPlace): string {
  return at.step > 0 ? trans.__('at epoch %1, batch %2', at.epoch + 1, at.step) : trans.__('after epoch %1', at.epoch);
}

/** What a person should know who has paused or cancelled it. */
export function steer(run: IRun): string {
  if (run.state === 'PAUSED') {
    const command = `%kafka_resume ${shortId(run.run_id)}`;
    const where = run.checkpoint ? place(run.checkpoint) : '';
    return where ? trans.__('Paused %1; %2 goes on.', where, command) : trans.__('Paused; %1 goes on.', command);
  }
  if (run.state !== 'CANCELLED') {
    return '';
  }
  const processes: Record<string, string> = {
    none: trans.__(', before it had begun'),
    gone: trans.__('; its process is gone'),
    'cut off': trans.__('; its worker was cut off and its lease ran out, its process ends when it sees that')
  };
  const by = run.ended_by ? trans.__('Cancelled by %1', run.ended_by) : trans.__('Cancelled');
  return `${by}${processes[run.process] ?? ''}.`;
}

/** "learning_rate 0.0010 since epoch 5, batch 12" */
export function since(applied: IApplied | null): string {
  const values = Object.entries(applied?.settings ?? {}).filter((pair): pair is [string, number] => typeof pair[1] === 'number');
  const named = values.map(([name, value]) => `${name} ${metric(value)}`).join(', ');
  return applied && named ? trans.__('%1 since epoch %2, batch %3', named, applied.epoch + 1, applied.step) : '';
}

/** A sentence under the bar where figures say too little. */
export function note(run: IRun): string {
  const notes: Record<string, string> = {
    QUEUED: run.waiting || trans.__('Waiting for a free worker.'),
    CLAIMED: trans.__('Worker %1 has taken it and builds the model.', run.worker),
    LOST: run.waiting || trans.__('Its worker fell silent; the next free one takes over.'),
    RETRYING: run.waiting || trans.__('The attempt failed and is tried again.'),
    PAUSING: trans.__('It writes a checkpoint and frees its worker.'),
    PAUSED: run.waiting || steer(run),
    STOPPING: trans.__('It ends after this batch and keeps its weights.'),
    CANCELLING: trans.__('It is being ended; your weights stay as before.'),
    CANCELLED: steer(run)
  };
  const told = notes[run.state] ?? (run.terminal ? '' : run.waiting);
  return run.terminal ? told : [told, run.warning].filter(Boolean).join(' ');
}

/** The last line of a card, left to right. */
export function footnotes(run: IRun, history: History, now: number): string[] {
  const notes: string[] = [];
  const named = run.terminal && run.error?.worker; // the error block says it
  if (run.worker && run.attempt && !named) {
    notes.push([trans.__('worker %1', run.worker), run.device].filter(Boolean).join(' · '));
  }
  if (run.state === 'QUEUED' && run.submitted_ms) {
    notes.push(trans.__('submitted %1', ago(now - run.submitted_ms)));
  } else if (!run.terminal && run.heartbeat_ms) {
    notes.push(trans.__('heartbeat %1', ago(now - run.heartbeat_ms)));
  }
  const seconds = secondsPerEpoch(history.epochs);
  if (seconds && !run.terminal) {
    notes.push(trans.__('%1 per epoch', pace(seconds)));
  }
  if (run.attempt > 1) {
    const start = run.starts[run.starts.length - 1];
    const from = start?.epoch ? trans.__('resumed at epoch %1', start.epoch + 1) : trans.__('begun anew');
    notes.push(run.terminal ? trans.__('%1 attempts, %2', run.attempt, from) : trans.__('attempt %1, %2', run.attempt, from));
  }
  if (run.code) {
    notes.push(trans.__('runs your code'));
  }
  if (run.retry_of) {
    notes.push(trans.__('retry of %1', shortId(run.retry_of)));
  }
  if (!run.terminal) {
    notes.push(...[since(run.applied)].filter(Boolean));
  }
  if (run.terminal && run.files.length) {
    notes.push(run.files.length > 2 ? trans._n('%1 file', '%1 files', run.files.length) : run.files.join(', '));
  }
  if (run.terminal && run.state !== 'SUCCEEDED') {
    notes.push(trans.__('your weights are as before'));
  }
  return notes;
}

/** All of it in one sentence, for the progress bar and for people who listen. */
export function spoken(run: IRun, history: History): string {
  const { done } = progress(run, history);
  const lines = metricLines(history.epochs).filter(line => typeof line.last === 'number');
  const shown = lines.slice(0, 4).map(line => `${line.name} ${metric(line.last)}`);
  return [stateName(run.state).toLowerCase(), trans.__('epoch %1 of %2', done, run.epochs), ...shown].join(', ');
}

export interface ICurve {
  name: string;
  values: (number | null | undefined)[]; // null: no number, the line has a gap; undefined: not measured there, it goes on (validation_freq)
  dashed: boolean;
  hue?: number; // where several runs share a picture: which colour and dash of HUES
}

export interface ICurves {
  title: string;
  x: number[];
  curves: ICurve[];
  height?: number; // px
}

const POINTS = 1000; // of a curve: more cannot be told apart, and all are drawn again with every epoch

/** A metric and its validation twin share one axis; each pair is a picture. Of a long history a point is the newest value of some epochs. */
export function curves(epochs: readonly IRow[]): ICurves[] {
  const size = Math.ceil(epochs.length / POINTS);
  const chunks: IRow[][] = [];
  for (let end = epochs.length; end > 0; end -= size) {
    chunks.unshift(epochs.slice(Math.max(0, end - size), end).reverse());
  }
  const x = chunks.map(chunk => chunk[0].epoch + 1);
  const names = [...new Set(epochs.flatMap(row => Object.keys(row.metrics)))];
  const titles = [...new Set(names.map(name => name.replace(/^val_/, '')))];
  return titles.map(title => ({
    title,
    x,
    curves: [title, `val_${title}`]
      .filter(name => names.includes(name))
      .map(name => ({
        name,
        dashed: name.startsWith('val_'),
        values: chunks.map(chunk => newest(chunk.map(row => row.metrics[name])))
      }))
  }));
}

function newest(values: readonly (number | null | undefined)[]): number | null | undefined {
  return values.find(value => typeof value === 'number') ?? (values.includes(null) ? null : undefined);
}
