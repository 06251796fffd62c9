import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

import { Pace } from '../src/pace';

const START = 1_000_000;

/** A pace, and when (ms since the start) something was drawn; `at` says at which time what happens. */
function played(t: TestContext, until: number, at: Record<number, (pace: Pace) => void>): number[] {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: START });
  const drawn: number[] = [];
  const pace = new Pace(() => drawn.push(Date.now() - START));
  for (let ms = 0; ms <= until; ms++) {
    at[ms]?.(pace);
    t.mock.timers.tick(1);
  }
  return drawn;
}

const every = (ms: number, from: number, until: number, what: (pace: Pace) => void) =>
  Object.fromEntries(Array.from({ length: Math.ceil((until - from) / ms) }, (_, i) => [from + i * ms, what]));
const news = (pace: Pace) => pace.news();
const calm = (pace: Pace) => pace.calm();

/** The most drawings in any second. */
const most = (drawn: readonly number[]) => Math.max(...drawn.map(from => drawn.filter(at => at >= from && at < from + 1000).length));

test('an epoch is drawn at once, however many batches are told of around it', t => {
  const epochs = every(600, 370, 10_000, news);
  const drawn = played(t, 10_000, { ...every(250, 5, 10_000, calm), ...epochs });
  const lags = Object.keys(epochs).map(at => drawn.find(time => time >= Number(at))! - Number(at));
  assert.ok(Math.max(...lags) <= 2, `drawn ${lags.join()} ms behind the ends of epochs`);
  assert.ok(most(drawn) <= 4);
});

test('batches are drawn twice a second where nothing else is', t => {
  const drawn = played(t, 5_000, every(250, 0, 5_000, calm));
  assert.ok(drawn.length >= 8 && drawn.length <= 11, String(drawn));
});

test('epochs that come faster than a person reads are drawn four times a second, at even distances, the last one too', t => {
  const drawn = played(t, 4_000, every(20, 0, 3_001, news));
  assert.ok(most(drawn) <= 4);
  const gaps = drawn.slice(1).map((at, i) => at - drawn[i]);
  assert.ok(Math.max(...gaps) <= 255 && Math.min(...gaps) >= 245, String(gaps));
  assert.ok(drawn.at(-1)! >= 3_000);
});

test('time goes by in the picture without news, and is not drawn where something else was', t => {
  const drawn = played(t, 5_000, { 0: pace => pace.now(), ...every(1000, 500, 5_000, pace => pace.tick()), 2_000: calm });
  assert.deepEqual(drawn, [0, 1000, 2000, 2500, 3500, 4500]);
});

test('what is stopped is drawn no more', t => {
  assert.deepEqual(played(t, 2_000, { 0: pace => pace.now(), 10: pace => (news(pace), pace.stop()) }), [0]);
});

test('who does much in a second has used up what news may be drawn in it', t => {
  const clicks = every(20, 0, 80, pace => pace.now());
  assert.deepEqual(played(t, 2_000, { ...clicks, 100: news }), [0, 20, 40, 60, 1000]);
});
