import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { mock, test } from 'node:test';

import { RunModel } from '../src/model';
import { RunsModel } from '../src/runs';
import { event, isStream, site, startStream } from './site';

const run = (id: string, upto = 1) => ({ run_id: id, name: 'a', state: 'RUNNING', upto, epochs: 3, attempt: 1, starts: [] });
const LIST = { runs: [run('a-1234')], total: 1, me: 'ada@box' };

/** Resolves when a condition holds. The test's own time limit says when it never does. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise(resolve => setImmediate(resolve));
  }
}

function list(path: string, response: ServerResponse): void {
  response.end(JSON.stringify(path === 'workers' ? { workers: [] } : LIST));
}

function say(response: ServerResponse, status: number, error: string, message: string): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify({ error, message }));
}

const SAID: [string, number, string, string][] = [
  ['off', 404, '', ''],
  ['refused', 403, '', 'User is not authorized'],
  ['no-kafka', 503, 'BrokerUnreachable', 'No Kafka is running'],
  ['unusable', 503, 'TopicMissing', 'There are no topics'],
  ['unusable', 500, 'SettingsError', 'There is no such profile'],
  ['reconnecting', 502, '', '']
];

for (const [standing, status, error, message] of SAID) {
  test(`the list is "${standing}" where the stream is answered with ${status} ${error}, and asks for nothing else`, { timeout: 10_000 }, async () => {
    const { hub, requests, close } = await site((_, __, response) => say(response, status, error, message));
    const model = new RunsModel(() => 10, hub);
    model.follow();
    await until(() => model.standing !== 'loading');
    assert.equal(model.standing, standing);
    assert.equal(model.trouble, message);
    assert.ok(requests.every(isStream));
    model.unfollow();
    await close();
  });
}

test('a server that comes to have runs is found as soon as somebody looks', { timeout: 10_000 }, async () => {
  let there = false;
  const { hub, requests, close } = await site((path, _, response) => {
    if (!there) {
      response.writeHead(404).end();
    } else if (path === 'events') {
      startStream(response);
    } else {
      list(path, response);
    }
  });
  const model = new RunsModel(() => 10, hub);
  model.follow();
  await until(() => model.standing === 'off');
  there = true;
  model.hurry();
  await until(() => model.standing === 'live');
  assert.equal(model.runs[0].run_id, 'a-1234');
  assert.equal(requests.filter(isStream).length, 2);
  model.unfollow();
  await close();
});

test('a login page in place of the stream is no connection', { timeout: 10_000 }, async () => {
  const { hub, close } = await site((_, __, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<form>'));
  const model = new RunsModel(() => 10, hub);
  model.follow();
  await until(() => model.connection === 'retrying');
  assert.equal(hub.stats.connects, 0);
  model.unfollow();
  await close();
});

test('without a Kafka a page asks about once a minute in the end', { timeout: 10_000 }, async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const { hub, requests, close } = await site((_, __, response) => say(response, 503, 'BrokerUnreachable', 'No Kafka is running'));
    const model = new RunsModel(() => 10, hub);
    model.follow();
    mock.timers.tick(100);
    for (let i = 1; i <= 9; i++) {
      await until(() => requests.length === i && model.connection === 'retrying');
      await settled();
      mock.timers.tick(75_000);
    }
    await until(() => requests.length === 10);
    await settled();
    mock.timers.tick(44_000);
    await settled();
    assert.equal(requests.length, 10);
    model.unfollow();
    await close();
  } finally {
    mock.timers.reset();
  }
});

/** The answer has come to the page. */
async function settled(): Promise<void> {
  for (let i = 0; i < 50; i++) {
    await new Promise(resolve => setImmediate(resolve));
  }
}

test('a run that joins while Kafka is away knows it', { timeout: 10_000 }, async () => {
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
      event(response, '1', 'health', { reachable: false, message: 'Kafka does not answer' });
    } else {
      list(path, response);
    }
  });
  const model = new RunsModel(() => 10, hub);
  model.follow();
  await until(() => model.standing === 'reconnecting' && model.loaded);
  const late = new RunModel('a-1234', hub);
  late.follow(() => undefined);
  await until(() => late.away);
  late.dispose();
  model.unfollow();
  await close();
});

test('what happened between its first answer and the wider connection is asked for again', { timeout: 10_000 }, async () => {
  const asked: string[] = [];
  const streams: IncomingMessage[] = [];
  const { hub, close } = await site((path, request, response) => {
    if (path === 'events') {
      streams.push(request);
      startStream(response);
      event(response, String(streams.length), 'health', { reachable: true, message: '' });
    } else {
      asked.push(`${path} behind ${streams.length}`);
      response.end(JSON.stringify({ run: run(path.slice('runs/'.length)), rows: [] }));
    }
  });
  const first = new RunModel('a-1234', hub);
  first.follow(() => undefined);
  await until(() => first.known === true);
  const second = new RunModel('b-5678', hub);
  second.follow(() => undefined);
  await until(() => second.known === true && streams.length === 2);
  assert.deepEqual(asked, ['runs/a-1234 behind 1', 'runs/b-5678 behind 2']);
  first.dispose();
  second.dispose();
  await close();
});

test('a list that has to be forgotten while the server goes away is loaded when it is back', { timeout: 10_000 }, async () => {
  const streams: ServerResponse[] = [];
  let lists = 0;
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      streams.push(response);
      startStream(response);
      event(response, String(streams.length), 'health', { reachable: true, message: '' });
    } else if (streams.length === 1 && lists >= 3) {
      response.destroy();
    } else {
      lists += 1;
      list(path, response);
    }
  });
  const model = new RunsModel(() => 10, hub);
  model.follow();
  await until(() => model.standing === 'live');
  event(streams[0], '7', 'reset', {});
  streams[0].end('retry: 10\n\n');
  await until(() => lists === 6);
  model.unfollow();
  await close();
});
