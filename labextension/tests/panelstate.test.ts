import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PanelState } from '../src/panelstate';

test('what a person has changed before the workspace answers stays, and the rest is as it was kept', async () => {
  let answer: (kept: unknown) => void = () => undefined;
  const state = new PanelState({ fetch: () => new Promise(resolve => (answer = resolve)), save: () => Promise.resolve() });
  const restored = state.restore();
  state.update({ text: 'resnet' });
  answer({ text: 'winner', mine: true, compared: ['a-1', 'b-2'] });
  await restored;
  assert.deepEqual([state.now.text, state.now.mine, state.now.compared], ['resnet', true, ['a-1', 'b-2']]);
});
