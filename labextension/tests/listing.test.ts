import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes, detailsOf, differing } from '../src/details';
import { type IQuery, activity, chosen, grouped, leftOf, scoreOf, terms, wordFor } from '../src/listing';
import { stateOf } from '../src/panelstate';
import { type IRun, runOf } from '../src/run';
import { counted } from '../src/runs';
import { rowOf } from '../src/rows';
import { trans, useWords } from '../src/words';

const NOW = new Date(2026, 10, 26, 12).getTime();

function run(name: string, fields: Record<string, unknown> = {}): IRun {
  return runOf({ run_id: `${name}-0000`, name, state: 'SUCCEEDED', terminal: true, epochs: 10, submitted_ms: NOW, ...fields })!;
}

const query = (fields: Partial<IQuery> = {}): IQuery => ({ text: '', owner: '', sort: 'newest', metric: '', hidden: new Set(), ...fields });
const names = (runs: readonly IRun[], fields: Partial<IQuery>) => chosen(runs, query(fields), NOW).map(each => each.name);

test('words, fields, quotes, alternatives and negations narrow the list down', () => {
  const runs = [
    run('resnet', { state: 'FAILED', notebook: '/work/my draft.ipynb', owner: 'ada@box', labels: { team: 'vision' } }),
    run('digits', { state: 'RUNNING', terminal: false, owner: 'bob@box', worker: 'gpu-1', host: 'rack', model: 'sequential' })
  ];
  const found: [string, string[]][] = [
    ['', ['digits', 'resnet']],
    ['RES', ['resnet']],
    ['state:failed', ['resnet']],
    ['state:failed,running', ['digits', 'resnet']],
    ['-state:failed', ['digits']],
    ['notebook:"my draft"', ['resnet']],
    ['"my draft" net', ['resnet']],
    ['owner:bob worker:gpu', ['digits']],
    ['worker:rack model:seq', ['digits']],
    ['label:team=vision', ['resnet']],
    ['constructor:x', []],
    ['id:digits-0000', ['digits']],
    ['"', ['digits', 'resnet']]
  ];
  for (const [text, wanted] of found) {
    assert.deepEqual(names(runs, { text }), wanted, text);
  }
  assert.deepEqual(names(runs, { owner: 'ada@box' }), ['resnet']);
  assert.deepEqual(names(runs, { hidden: new Set(['resnet-0000']) }), ['digits']);
  assert.deepEqual(terms('a -b:"c d"'), [
    { not: false, key: '', value: 'a' },
    { not: true, key: 'b', value: 'c d' }
  ]);
  assert.equal(wordFor('state:failed net -notebook:something'), 'net');
});

test('runs are put in order by name, progress, metric and time left', () => {
  const tally = (done: number, best: Record<string, [number, number]>, seconds = 0) => ({ done, metrics: {}, best, seconds, at_ms: NOW });
  const runs = [
    run('net-10', { tally: tally(3, { val_loss: [0.2, 1], loss: [0.1, 1] }) }),
    run('net-9', { tally: tally(5, { val_loss: [0.1, 1] }), state: 'RUNNING', terminal: false }),
    run('acc', { tally: tally(2, { val_accuracy: [0.9, 2] }, 2), state: 'RUNNING', terminal: false }),
    run('none')
  ];
  assert.deepEqual(names(runs, { sort: 'name' }), ['acc', 'net-9', 'net-10', 'none']);
  assert.deepEqual(names(runs, { sort: 'metric' }), ['acc', 'net-9', 'net-10', 'none']);
  assert.deepEqual(names(runs, { sort: 'metric', metric: 'loss' })[0], 'net-10');
  assert.equal(names(runs, { sort: 'left' })[0], 'acc');
  assert.equal(names(runs, { sort: 'state' }).slice(0, 2).includes('none'), false);
  assert.equal(leftOf(runs[2], NOW), 16_000);
  assert.equal(leftOf(runs[3], NOW), null);
  assert.deepEqual(scoreOf(runs[0]), { name: 'val_loss', value: 0.2, epoch: 1 });
  assert.equal(scoreOf(runs[3]), null);
});

test('what is going on stands first, then the days', () => {
  const day = 86_400_000;
  const runs = [
    run('old', { ended_ms: NOW - 5 * day }),
    run('yesterday', { ended_ms: NOW - day }),
    run('today', { ended_ms: NOW }),
    run('moving', { state: 'RUNNING', terminal: false, submitted_ms: NOW - 9 * day }),
    run('waiting', { state: 'QUEUED', terminal: false })
  ];
  const groups = grouped(chosen(runs, query(), NOW), query(), NOW);
  assert.deepEqual(
    groups.map(group => [group.title, group.runs.length]),
    [
      ['Running 1 · queued 1', 2],
      ['Today', 1],
      ['Yesterday', 1],
      ['Earlier', 1]
    ]
  );
  assert.equal(grouped(runs, query({ sort: 'name' }), NOW).length, 1);
  assert.deepEqual(grouped([], query({ sort: 'name' }), NOW), []);
  assert.equal(activity([run('p', { state: 'PAUSED', terminal: false })]), 'Running 0 · paused 1');
});

test('the tally of a run grows with its epochs, each once', () => {
  const row = (epoch: number, loss: number) => rowOf({ type: 'epoch', seq: epoch, epoch, metrics: { loss, lr: 0.1, acc: 1 - loss }, seconds: 2 })!;
  const nothing = { done: 0, metrics: {}, best: {}, seconds: 0, at_ms: 0 };
  const tally = [row(0, 0.5), row(1, 0.25), row(1, 0.1), row(2, 0.75)].reduce(counted, nothing);
  assert.equal(tally.done, 3);
  assert.deepEqual(tally.best, { loss: [0.25, 2], acc: [0.75, 2] });
  assert.equal(tally.seconds, 2);
});

test('what a workspace has kept is read back as far as it makes sense', () => {
  assert.deepEqual(stateOf(null), stateOf({}));
  const kept = stateOf({ page: 'x', sort: 'name', mine: 1, hidden: ['a', 7], text: 'w'.repeat(9999), compared: 'a', open: {} });
  assert.deepEqual([kept.page, kept.sort, kept.mine, kept.hidden, kept.text.length, kept.compared, kept.open], ['runs', 'name', false, ['a'], 500, [], '']);
});

test('parameters that differ are found, and what is no detail is passed over', () => {
  const [a, b] = [{ epochs: 3, lr: 0.1, x: null }, { epochs: 3, lr: 0.2, extra: 'y' }].map(parameters => detailsOf({ parameters })!.parameters);
  assert.deepEqual(differing([a, b]), [
    ['lr', [0.1, 0.2]],
    ['extra', [undefined, 'y']]
  ]);
  assert.equal(differing([a, b], true).length, 3);
  assert.equal(detailsOf('x'), null);
  assert.deepEqual(detailsOf({ attempts: [null, { n: 2, worker: 7 }], artifacts: 'x', path: 3 })?.attempts[0].worker, '');
  assert.deepEqual([0, 1023, 1536, 5 * 2 ** 30].map(bytes), ['0 B', '1023 B', '1.5 KiB', '5.0 GiB']);
});

test('a page has the words of its language, with the values in their places', () => {
  assert.equal(trans.__('%2 of %1', 5, '%1'), '%1 of 5');
  assert.equal(trans._n('%1 run', '%1 runs', 1), '1 run');
  useWords({ __: text => `!${text}`, _n: (_, plural) => `!${plural}` });
  assert.equal(trans.__('Runs'), '!Runs');
  assert.equal(trans._n('one', 'more', 3), '!more');
});
