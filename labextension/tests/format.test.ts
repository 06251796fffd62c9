import assert from 'node:assert/strict';
import { test } from 'node:test';

import cases from './cases.json';
import { ago, duration, goal, metric, ordinal, pace, tone } from '../src/format';
import { runOf } from '../src/run';
import { History, rowOf } from '../src/rows';
import { headline, metricLines, progress, since, steer, timeLeft, when } from '../src/summary';

test('numbers, durations and goals are those of the kernel side', () => {
  for (const [value, text] of cases.metric) {
    assert.equal(metric(value as number | null), text);
  }
  for (const [ms, text] of cases.duration) {
    assert.equal(duration(ms as number), text);
  }
  for (const [name, wanted] of cases.goal) {
    assert.equal(goal(name as string), wanted, name as string);
  }
});

test('last and best values are those of the kernel side', () => {
  const lines = metricLines(cases.history.rows.map(row => rowOf(row)!));
  assert.deepEqual(
    lines.map(line => [line.name, line.last, line.best, line.bestEpoch, line.star]),
    cases.history.lines
  );
  assert.deepEqual(
    headline(lines).map(line => line.name),
    cases.history.headline
  );
});

test('how a run was paused, cancelled or changed is said as on the kernel side', () => {
  const run = (fields: object) => runOf({ run_id: 'digits-3f2a9c01b7d4', ...fields })!;
  for (const [fields, text] of cases.steer) {
    assert.equal(steer(run(fields as object)), text);
  }
  for (const [applied, text] of cases.since) {
    assert.equal(since(run({ state: 'RUNNING', applied }).applied), text);
  }
});

test('how far a moving run is, and how long it will take, is said as on the kernel side', () => {
  for (const { run, rows, now, fraction, left, text } of cases.under_way) {
    const history = new History();
    history.add(rows.map(row => rowOf({ attempt: 1, ...row })!));
    const moving = runOf({ run_id: 'digits-3f2a9c01b7d4', state: 'RUNNING', epochs: 20, ...run })!;
    assert.equal(progress(moving, history).fraction, fraction);
    const time = timeLeft(moving, history, now);
    assert.equal(time === null ? null : Math.round(time), left);
    assert.equal(when(moving, history, now), text);
  }
});

test('ages and paces read as a person says them', () => {
  assert.equal(ago(1200), '1 s ago');
  assert.equal(ago(125_000), '2:05 ago');
  assert.equal(ago(-3000), '0 s ago');
  assert.deepEqual([0.0004, 0.012, 0.84, 3.24, 12.4, 65].map(pace), ['1 ms', '12 ms', '0.84 s', '3.2 s', '12 s', '1:05']);
  assert.deepEqual([1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal), ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '112th']);
});

test('an unknown state has a colour too', () => {
  assert.equal(tone('SUCCEEDED'), 'ok');
  assert.equal(tone('SOMETHING_NEW'), 'idle');
});
