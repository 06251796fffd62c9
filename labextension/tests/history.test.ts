import assert from 'node:assert/strict';
import { test } from 'node:test';

import { range, ticks } from '../src/chart';
import { type IRun, runOf, shortId } from '../src/run';
import { History, type IRow, rowOf } from '../src/rows';
import { curves, footnotes, note, progress, spoken, timeLeft, verbsOf, when } from '../src/summary';

const epoch = (attempt: number, seq: number, number: number, loss = 1 / (number + 1)): IRow =>
  rowOf({ type: 'epoch', attempt, seq, epoch: number, metrics: { loss }, seconds: 2, at_ms: 10_000 * (number + 1) })!;

function historyOf(...rows: IRow[]): History {
  const history = new History();
  history.add(rows);
  return history;
}

function run(fields: Record<string, unknown> = {}): IRun {
  return runOf({ run_id: 'digits-3f2a9c01b7d4', short: '3f2a', name: 'digits', state: 'RUNNING', attempt: 1, epochs: 20, worker: 'box', ...fields })!;
}

test('rows are unique by attempt and seq, in whatever order they come', () => {
  const history = historyOf(epoch(1, 5, 2), epoch(1, 3, 1), epoch(1, 1, 0), epoch(1, 3, 1));
  assert.deepEqual(
    history.epochs.map(row => row.epoch),
    [0, 1, 2]
  );
});

test('a later start takes back what lay behind its resume point, and nothing else', () => {
  const history = historyOf(epoch(1, 1, 0), epoch(1, 2, 1), epoch(1, 3, 2), epoch(2, 1, 1, 0.25));
  history.restart([
    { n: 1, epoch: 0, step: 0 },
    { n: 2, epoch: 1, step: 0 }
  ]);
  assert.deepEqual(
    history.epochs.map(row => [row.attempt, row.epoch]),
    [
      [1, 0],
      [2, 1]
    ]
  );
});

test('the batch under way is the newest one, and gone when its epoch has ended', () => {
  const batch = (seq: number, step: number) => rowOf({ type: 'batch', attempt: 1, seq, epoch: 1, step, steps: 40 })!;
  const history = historyOf(epoch(1, 1, 0), batch(4, 30), batch(3, 20));
  assert.equal(history.batch?.step, 30);
  history.add([epoch(1, 5, 1)]);
  assert.equal(history.batch, null);
});

test('what is no row, no run or no metric is passed over', () => {
  assert.equal(rowOf(null), null);
  assert.equal(rowOf({ type: 'epoch' }), null);
  assert.equal(runOf({ run_id: 7 }), null);
  assert.deepEqual(rowOf({ type: 'epoch', seq: 1, metrics: { loss: '<b>', ok: 1, nan: null } })?.metrics, { ok: 1, nan: null });
  assert.deepEqual(runOf({ run_id: 'a', state: 'FAILED', error: 'x', starts: [null, 3], files: [1, 'b'] })?.files, ['b']);
});

test('progress counts the epochs of this fit and the part of the one under way', () => {
  const history = historyOf(epoch(1, 1, 10), rowOf({ type: 'batch', attempt: 1, seq: 2, epoch: 11, step: 20, steps: 40 })!);
  assert.equal(progress(run({ initial_epoch: 10 }), history).fraction, 0.15);
  assert.equal(progress(run({ state: 'SUCCEEDED', terminal: true, epochs_done: 12 }), history).fraction, 1);
});

test('the time left rests on the middle one of the last epochs', () => {
  const history = historyOf(epoch(1, 1, 0), epoch(1, 2, 1));
  assert.equal(timeLeft(run({ started_ms: 1 }), history, 20_000), 36_000);
  assert.equal(timeLeft(run({ started_ms: 1 }), history, 21_000), 35_000);
  assert.equal(timeLeft(run({ started_ms: 0 }), new History(), 20_000), null);
});

test('each state says how far it is', () => {
  const two = historyOf(epoch(1, 1, 0), epoch(1, 2, 1));
  assert.equal(when(run({ started_ms: 1 }), two, 20_000), 'epoch 2 of 20 · 0:36 left');
  assert.equal(when(run({ state: 'QUEUED', attempt: 0, queue: 2 }), new History(), 0), '2nd in the queue');
  const ended = { terminal: true, started_ms: 1000, ended_ms: 18_500 };
  assert.equal(when(run({ ...ended, state: 'SUCCEEDED', epochs_done: 20 }), two, 0), '20 epochs in 0:17');
  assert.equal(when(run({ ...ended, state: 'SUCCEEDED', epochs_done: 2, stopped_early: true }), two, 0), '2 of 20 epochs in 0:17 · stopped early');
  assert.equal(when(run({ ...ended, state: 'FAILED' }), two, 0), 'epoch 2 of 20 · after 0:17');
  assert.equal(when(run({ state: 'CANCELLED', terminal: true }), new History(), 0), 'before it began');
});

test('batches are named only where an epoch is long enough to read them', () => {
  const slow = rowOf({ type: 'epoch', attempt: 1, seq: 1, epoch: 0, seconds: 60, at_ms: 1000 })!;
  const batch = rowOf({ type: 'batch', attempt: 1, seq: 2, epoch: 1, step: 20, steps: 40 })!;
  assert.equal(when(run({ started_ms: 1 }), historyOf(slow, batch), 1000), 'epoch 2 of 20 · batch 20 of 40 · 18:30 left');
  assert.equal(when(run({ started_ms: 1 }), historyOf(epoch(1, 1, 0), batch), 1000), 'epoch 1 of 20 · 0:37 left');
});

test('notes and footnotes say what people ask', () => {
  assert.equal(note(run({ state: 'QUEUED', waiting: 'No worker has a GPU.' })), 'No worker has a GPU.');
  assert.equal(note(run({ state: 'RUNNING', warning: 'It will be ended in 2 h.' })), 'It will be ended in 2 h.');
  assert.equal(note(run({ state: 'QUEUED', waiting: 'No GPU.', warning: 'Ends soon.' })), 'No GPU. Ends soon.');
  assert.equal(note(run({ state: 'SUCCEEDED', terminal: true, warning: 'Ends soon.' })), '');
  const notes = footnotes(run({ device: 'cpu', heartbeat_ms: 1000, attempt: 2, starts: [{ n: 2, epoch: 6, step: 0 }] }), historyOf(epoch(1, 1, 0)), 2000);
  assert.deepEqual(notes, ['worker box · cpu', 'heartbeat 1 s ago', '2.0 s per epoch', 'attempt 2, resumed at epoch 7']);
  assert.deepEqual(footnotes(run({ state: 'FAILED', terminal: true }), new History(), 0), ['worker box', 'your weights are as before']);
  assert.equal(spoken(run(), historyOf(epoch(1, 1, 0))), 'running, epoch 1 of 20, loss 1.0000');
});

test('a metric and its validation twin share a picture; what is no number is a gap, what was not measured is none', () => {
  const rows = [
    { type: 'epoch', seq: 1, epoch: 0, metrics: { loss: 1, val_loss: 2, mae: 3 } },
    { type: 'epoch', seq: 2, epoch: 1, metrics: { loss: 0.5, mae: null } }
  ];
  assert.deepEqual(curves(rows.map(row => rowOf(row)!)), [
    {
      title: 'loss',
      x: [1, 2],
      curves: [
        { name: 'loss', dashed: false, values: [1, 0.5] },
        { name: 'val_loss', dashed: true, values: [2, undefined] }
      ]
    },
    { title: 'mae', x: [1, 2], curves: [{ name: 'mae', dashed: false, values: [3, null] }] }
  ]);
});

test('ticks are round and few', () => {
  assert.deepEqual(ticks(0.07, 0.95, 3), [0.5]);
  assert.deepEqual(ticks(0, 1, 3), [0, 0.5, 1]);
  assert.deepEqual(ticks(1, 12, 5), [5, 10]);
});

test('the short id still names the run', () => {
  assert.equal(shortId('digits-3f2a9c01b7d4'), 'digits-3f2a');
});

test('a history of 200,000 epochs is drawn with some of its points, the newest and rare ones among them', () => {
  const rows = Array.from({ length: 200_000 }, (_, i) => {
    const metrics = i % 10 === 3 ? { loss: i, val_loss: -i } : { loss: i };
    return rowOf({ type: 'epoch', attempt: 1, seq: i, epoch: i, metrics })!;
  });
  const [picture] = curves(historyOf(...rows.slice(0, 10)).epochs);
  assert.deepEqual(picture.x, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 'a short one is drawn as it is');
  assert.deepEqual(
    picture.curves[1].values,
    rows.slice(0, 10).map(row => row.metrics.val_loss)
  );
  const [long] = curves(rows);
  assert.equal(long.x.length, 1000);
  assert.equal(long.x[999], 200_000);
  const [loss, validation] = long.curves;
  assert.equal(loss.values[999], 199_999);
  assert.equal(validation.values[999], -199_993);
  assert.ok(validation.values.every(value => typeof value === 'number'));
});

test('the range of very many values is found', () => {
  assert.deepEqual(range(Array.from({ length: 300_000 }, (_, i) => i - 7)), [-7, 299_992]);
  assert.deepEqual(range([4]), [2, 6]);
});

test('a run can be asked for what its state allows', () => {
  const verbs = (fields: Record<string, unknown>) => verbsOf(run(fields)).join(' ');
  assert.equal(verbs({ state: 'QUEUED' }), 'pause cancel');
  assert.equal(verbs({ state: 'CLAIMED' }), 'pause cancel');
  assert.equal(verbs({ state: 'LOST', checkpoint: { epoch: 1, step: 0 } }), 'stop pause cancel');
  assert.equal(verbs({ state: 'RUNNING' }), 'stop pause cancel');
  assert.equal(verbs({ state: 'PAUSING', wish: 'pause' }), 'resume cancel');
  assert.equal(verbs({ state: 'PAUSED', wish: 'pause' }), 'resume cancel');
  assert.equal(verbs({ state: 'PAUSED', wish: 'pause', checkpoint: { epoch: 1, step: 0 } }), 'stop resume cancel');
  assert.equal(verbs({ state: 'STOPPING', wish: 'stop' }), 'cancel');
  assert.equal(verbs({ state: 'QUEUED', wish: 'stop', checkpoint: { epoch: 1, step: 0 } }), 'cancel');
  assert.equal(verbs({ state: 'CANCELLING', wish: 'cancel' }), '');
  assert.equal(verbs({ state: 'SUCCEEDED', terminal: true }), '');
  for (const state of ['FAILED', 'CANCELLED', 'DEAD']) {
    assert.equal(verbs({ state, terminal: true }), 'retry');
  }
  assert.equal(verbs({ state: 'RUNNING', read_only: true }), '');
});

test('a run of code that a person wrote says so', () => {
  assert.deepEqual(footnotes(run({ code: true }), new History(), 0), ['worker box', 'runs your code']);
});

test('a retry says of which run, and a change from where on', () => {
  const fields = { retry_of: 'digits-0a1b2c3d4e5f', applied: { settings: { learning_rate: 0.5 }, epoch: 1, step: 3 } };
  const notes = footnotes(run(fields), new History(), 0);
  assert.deepEqual(notes, ['worker box', 'retry of digits-0a1b', 'learning_rate 0.5000 since epoch 2, batch 3']);
  assert.deepEqual(footnotes(run({ ...fields, state: 'SUCCEEDED', terminal: true }), new History(), 0), ['worker box', 'retry of digits-0a1b']);
});
