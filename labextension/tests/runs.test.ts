import assert from 'node:assert/strict';
import { test } from 'node:test';

import { plain } from '../src/format';
import { runOf } from '../src/run';
import { Lines, rowOf } from '../src/rows';
import { RunsModel, workerOf } from '../src/runs';
import { type IListener, StreamHub } from '../src/stream';
import { walls } from '../src/walls';

const card = (run_id: string, upto: number, fields: Record<string, unknown> = {}) => ({
  run_id,
  name: run_id,
  state: 'RUNNING',
  upto,
  epochs: 10,
  owner: 'ada',
  submitted_ms: upto,
  starts: [{ n: 1, epoch: 0, step: 0 }],
  tally: { done: 0, metrics: {}, best: {}, seconds: 1, at_ms: 0 },
  ...fields
});
const ended = { state: 'SUCCEEDED', terminal: true };

/** A hub whose server answers what `answers` says of a path; the stream is played by the test. */
function hubOf(answers: (path: string) => [number, unknown]): StreamHub {
  const hub = new StreamHub();
  hub.request = path => {
    const [status, body] = answers(path);
    return Promise.resolve(new Response(JSON.stringify(body), { status }));
  };
  hub.subscribe = (_: string | null, listener: IListener) => {
    listener.onConnection('open', true);
    return () => undefined;
  };
  return hub;
}

/** The model, once its list has been answered. */
async function loaded(answers: (path: string) => [number, unknown]): Promise<RunsModel> {
  const model = new RunsModel(() => 2, hubOf(answers));
  const told = new Promise<void>(resolve => model.listen(() => (model.loaded || model.trouble) && resolve()));
  model.follow();
  await told;
  return model;
}

const list = (runs: unknown[], total = runs.length) => (path: string): [number, unknown] => {
  if (path === 'workers') {
    return [200, { workers: [{ worker_id: 'b-1', name: 'b', free: 1, slots: 2 }, null, { worker_id: 'a-1', name: 'a' }] }];
  }
  return [200, path.includes('state=') ? { runs: [], total: 0 } : { runs, total, me: 'ada' }];
};

test('rows move a run between two states, and a state that is older takes nothing back', async () => {
  const model = await loaded(list([card('x', 1)]));
  const rows = (attempt: number, ...epochs: number[]) => ({
    run_id: 'x',
    attempt,
    rows: epochs.map(epoch => ({ type: 'epoch', seq: epoch + 1, epoch, metrics: { loss: 1 / (epoch + 1) } }))
  });
  model.onEvent('metrics', rows(1, 0, 1));
  assert.equal(model.run('x')?.tally?.done, 2);
  model.onEvent('metrics', rows(7, 5));
  assert.equal(model.run('x')?.tally?.done, 2, 'rows of another attempt');
  model.onEvent('run', card('x', 2));
  assert.equal(model.run('x')?.tally?.done, 2, 'a heartbeat that was told before these rows');
  model.onEvent('run', card('x', 1, ended));
  assert.equal(model.run('x')?.state, 'RUNNING');
  model.onEvent('run', card('x', 3, { starts: [{ n: 1 }, { n: 2, epoch: 1 }], tally: { done: 1 } }));
  assert.equal(model.run('x')?.tally?.done, 1, 'resumed: an epoch was taken back');
  assert.deepEqual(
    model.workers.map(worker => worker.name),
    ['a', 'b']
  );
  model.onEvent('worker', { worker_id: 'a-1', gone: true });
  assert.equal(model.workers.length, 1);
  assert.equal(model.standing, 'live');
  model.onEvent('health', { reachable: false, message: 'away' });
  assert.equal(model.standing, 'reconnecting');
});

test('the end of a run that was seen alive is told once', async () => {
  const model = await loaded(list([card('x', 1), card('old', 2, ended)]));
  const told: string[] = [];
  model.onEnd(run => told.push(run.run_id));
  model.onEvent('run', card('x', 3, ended));
  model.onEvent('run', card('x', 3, ended));
  model.onEvent('run', card('old', 4, ended));
  assert.deepEqual(told, ['x']);
});

test('runs that ended before those of the list are not told into it', async () => {
  const model = await loaded(list([card('new', 50), card('newer', 60)], 100));
  model.onEvent('run', card('ancient', 3, ended));
  model.onEvent('run', card('paused', 4, { state: 'PAUSED' }));
  model.onEvent('run', card('newest', 70, ended));
  assert.deepEqual(model.runs.map(run => run.run_id).sort(), ['new', 'newer', 'newest', 'paused']);
});

test('lines are kept in order, each once, and only the last ones', () => {
  const line = (attempt: number, seq: number, epoch = 0) => rowOf({ type: 'line', attempt, seq, epoch, step: 1, text: `${attempt}.${seq}` })!;
  const lines = new Lines(3);
  lines.add([line(1, 2), line(1, 1), line(1, 2), line(2, 1)]);
  assert.deepEqual(
    lines.all.map(row => row.text),
    ['1.1', '1.2', '2.1']
  );
  lines.restart([
    { n: 1, epoch: 0, step: 0 },
    { n: 2, epoch: 0, step: 0 }
  ]);
  assert.deepEqual(
    lines.all.map(row => row.text),
    ['2.1'],
    'attempt 2 began before the lines of attempt 1'
  );
  assert.equal(lines.cut, false);
  lines.add(Array.from({ length: 9 }, (_, i) => line(3, i)));
  assert.equal(lines.cut, true);
  assert.equal(lines.all.length, 3);
});

test('text from elsewhere is shown without what steers, and cut', () => {
  assert.equal(plain('\x1b[31mred\x1b[0m \x1b]8;;javascript:x\x07link\x1b]8;;\x07', 99), 'red link');
  assert.equal(plain('a\u202eb\u2066c\x00d\u200fe', 99), 'abcde');
  assert.equal(plain('x'.repeat(10_000_000), 5), 'xxxxx…');
  const run = runOf({ run_id: 'x', state: 'FAILED', name: 'n'.repeat(9999), labels: { a: 1, b: 'c' }, tally: { best: { loss: [1, 2], bad: 'x', worse: [null] } } });
  assert.equal(run?.name.length, 201);
  assert.deepEqual(run?.labels, { b: 'c' });
  assert.deepEqual(run?.tally?.best, { loss: [1, 2] });
  assert.equal(runOf({ run_id: 'x', state: 'constructor' }), null);
});

test('a worker says what it keeps its trainings from, and what it cannot where it runs code', () => {
  const told = (fields: Record<string, unknown>): string => {
    const worker = workerOf({ worker_id: 'a-1', ...fields });
    assert(worker);
    return walls(worker);
  };
  const all = ['network', 'secrets', 'privileges', 'memory'];
  assert.equal(told({}), '');
  assert.equal(told({ cage: all, network: false }), 'keeps trainings from: the network, keys, more rights, all memory');
  assert.equal(told({ cage: all, network: true }), 'keeps trainings from: keys, more rights, all memory');
  assert.equal(told({ code: true }), 'runs code, not kept from: the network, keys, more rights, all memory');
  assert.equal(
    told({ code: true, cage: ['memory', 7], network: false }),
    'runs code, not kept from: the network, keys, more rights · keeps trainings from: all memory'
  );
  assert.equal(told({ code: true, cage: all, network: false }), 'runs code · keeps trainings from: the network, keys, more rights, all memory');
});
