import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';

import { RunModel } from '../src/model';
import { StreamHub } from '../src/stream';
import { event, isStream, site, startStream } from './site';

const run = (upto: number, state = 'RUNNING') => ({ run_id: 'a-1234', name: 'a', state, upto, epochs: 3, attempt: 1, starts: [] });
const row = (seq: number, epoch: number) => ({ type: 'epoch', attempt: 1, seq, epoch, metrics: { loss: epoch } });

/** Connects the model; what it returns resolves when a condition holds. The test's own time limit says when it never does. */
function followed(model: RunModel): (condition: () => boolean) => Promise<void> {
  const looks = new Set<() => void>();
  model.follow(() => looks.forEach(look => look()));
  return condition =>
    new Promise(resolve => {
      const look = () => {
        if (condition()) {
          looks.delete(look);
          resolve();
        }
      };
      looks.add(look);
      look();
    });
}

function reached(model: RunModel, condition: () => boolean): Promise<void> {
  return followed(model)(condition);
}

test('history asked for and events that arrive make one whole, each row once', { timeout: 10_000 }, async () => {
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
      event(response, '1', 'metrics', { run_id: 'a-1234', attempt: 1, rows: [row(2, 1)] });
      event(response, '2', 'metrics', { run_id: 'b-9999', attempt: 1, rows: [row(9, 9)] });
      event(response, '3', 'metrics', { run_id: 'a-1234', attempt: 1, rows: [row(3, 2)] });
      event(response, '4', 'run', run(9, 'SUCCEEDED'));
    } else {
      response.end(JSON.stringify({ run: run(5), rows: [row(1, 0), row(2, 1)], cursor: '' }));
    }
  });
  const model = new RunModel('a-1234', hub);
  await reached(model, () => model.run?.state === 'SUCCEEDED' && model.known === true);
  assert.deepEqual(
    model.history.epochs.map(r => r.seq),
    [1, 2, 3]
  );
  model.dispose();
  await close();
});

test('batches and heartbeats are calm; epochs, states and attempts are not', () => {
  const model = new RunModel('a-1234', new StreamHub());
  const calm: (boolean | undefined)[] = [];
  model.follow(each => calm.push(each));
  const since = (what: () => void) => {
    calm.length = 0;
    what();
    return calm.map(Boolean);
  };
  const event = (kind: string, data: unknown) => since(() => model.onEvent(kind, data));
  model.known = true;
  assert.deepEqual(event('run', run(1, 'QUEUED')), [false]);
  assert.deepEqual(event('run', run(2)), [false]);
  assert.deepEqual(event('run', run(3)), [true]);
  assert.deepEqual(event('run', { ...run(4), attempt: 2 }), [false]);
  const rows = { run_id: 'a-1234', attempt: 2, rows: [row(1, 0)] };
  assert.deepEqual([event('progress', rows), event('log', rows), event('metrics', rows)], [[true], [true], [false]]);
  model.dispose();
});

test('an older state never replaces a newer one', () => {
  const model = new RunModel('a-1234', new StreamHub());
  model.put(run(9, 'SUCCEEDED'));
  model.put(run(5, 'RUNNING'));
  model.put({ ...run(99, 'FAILED'), run_id: 'b-9999' });
  assert.equal(model.run?.state, 'SUCCEEDED');
});

test('a cut connection resumes behind the last event', { timeout: 10_000 }, async () => {
  let connections = 0;
  const { hub, requests, close } = await site((path, _, response) => {
    if (path !== 'events') {
      response.end(JSON.stringify({ run: run(1), rows: [] }));
      return;
    }
    startStream(response);
    connections += 1;
    event(response, `0.0:${connections}`, 'metrics', { run_id: 'a-1234', attempt: 1, rows: [row(connections, connections - 1)] });
    if (connections < 3) {
      response.end('retry: 10\n\n');
    }
  });
  const model = new RunModel('a-1234', hub);
  await reached(model, () => model.history.epochs.length === 3);
  const ids = requests.filter(isStream).map(r => r.headers['last-event-id']);
  assert.deepEqual(ids, [undefined, '0.0:1', '0.0:2']);
  assert.equal(hub.stats.resumes, 2);
  model.dispose();
  await close();
});

test('what the server wished to be waited holds where the next connection breaks before it says so again', { timeout: 10_000 }, async t => {
  const waits = t.mock.method(globalThis, 'setTimeout');
  let connections = 0;
  const { hub, close } = await site((path, _, response) => {
    if (path !== 'events') {
      response.end(JSON.stringify({ run: run(1), rows: [] }));
      return;
    }
    startStream(response);
    connections += 1;
    if (connections === 1) {
      response.end('retry: 10\n\n');
    } else if (connections === 2) {
      response.end();
    } else {
      event(response, '1', 'run', run(9, 'SUCCEEDED'));
    }
  });
  const model = new RunModel('a-1234', hub);
  await reached(model, () => model.run?.state === 'SUCCEEDED');
  const long = waits.mock.calls.map(call => call.arguments[1] ?? 0).filter(ms => ms > 100 && ms < 1000);
  model.dispose();
  await close();
  assert.deepEqual(long, []);
});

test('many cards share one connection', { timeout: 10_000 }, async () => {
  const { hub, requests, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
    } else {
      response.end(JSON.stringify({ run: { ...run(1), run_id: path.slice('runs/'.length) }, rows: [] }));
    }
  });
  const models = ['a-1', 'b-2', 'c-3', 'd-4', 'e-5', 'f-6', 'g-7'].map(id => new RunModel(id, hub));
  await Promise.all(models.map(model => reached(model, () => model.known === true)));
  assert.equal(requests.filter(isStream).length, 1);
  models.forEach(model => model.dispose());
  await close();
});

for (const status of [404, 403]) {
  test(`a server that answers ${status} has no stream: off, and no second try`, { timeout: 10_000 }, async () => {
    const { hub, requests, close } = await site((_, __, response) => response.writeHead(status).end());
    const model = new RunModel('a-1234', hub);
    await reached(model, () => model.connection === 'off');
    assert.equal(requests.length, 1);
    model.dispose();
    await close();
  });
}

test('a reset forgets everything and asks again', { timeout: 10_000 }, async () => {
  let asked = 0;
  let stream: ServerResponse | null = null;
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      stream = response;
      startStream(response);
    } else {
      asked += 1;
      response.end(JSON.stringify({ run: run(asked === 1 ? 50 : 7), rows: [row(asked, asked)] }));
      if (asked === 1) {
        setImmediate(() => event(stream!, '5', 'reset', {}));
      }
    }
  });
  const model = new RunModel('a-1234', hub);
  await reached(model, () => asked === 2 && model.run?.upto === 7);
  assert.deepEqual(
    model.history.epochs.map(r => r.seq),
    [2]
  );
  model.dispose();
  await close();
});

test('an event that cannot be read is passed over', { timeout: 10_000 }, async t => {
  const complaints = t.mock.method(console, 'error', () => undefined);
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
      response.write('event: run\nid: 1\ndata: {broken\n\n');
      event(response, '2', 'run', run(9, 'SUCCEEDED'));
    } else {
      response.writeHead(404).end();
    }
  });
  const model = new RunModel('a-1234', hub);
  await reached(model, () => model.run?.state === 'SUCCEEDED');
  assert.equal(complaints.mock.callCount(), 1);
  model.dispose();
  await close();
});

test('a wish that the server refuses raises with its words', { timeout: 10_000 }, async () => {
  const { hub, requests, close } = await site((_, __, response) => response.writeHead(409).end(JSON.stringify({ message: 'It has ended.' })));
  await assert.rejects(new RunModel('a-1234', hub).ask('stop'), /It has ended/);
  assert.equal(`${requests[0].method} ${requests[0].url}`, 'POST /kafka-jupyter/runs/a-1234/stop');
  await close();
});

test("another person's run is asked to end only when the person says it twice", { timeout: 10_000 }, async () => {
  const bodies: string[] = [];
  const { hub, close } = await site((_, request, response) => {
    let body = '';
    request.on('data', chunk => (body += chunk));
    request.on('end', () => {
      bodies.push(body);
      response.writeHead(body.includes('true') ? 202 : 403).end(JSON.stringify({ error: 'NotYourRun', message: 'It is of Bob.' }));
    });
  });
  const model = new RunModel('a-1234', hub);
  model.put({ ...run(1), owner: 'bob@box' });
  await assert.rejects(model.ask('stop'), /belongs to bob@box. Click again if you mean it/);
  await assert.rejects(model.ask('cancel'), /belongs to bob@box/);
  await model.ask('cancel');
  assert.deepEqual(bodies, ['{"force":false}', '{"force":false}', '{"force":true}']);
  await close();
});

test('a retry answers with the new run', { timeout: 10_000 }, async () => {
  const answer = { run_id: 'a-5678', retry_of: 'a-1234' };
  const { hub, requests, close } = await site((_, __, response) => response.writeHead(202).end(JSON.stringify(answer)));
  assert.equal(await new RunModel('a-1234', hub).ask('retry'), 'a-5678');
  assert.equal(await new RunModel('a-1234', hub).ask('pause'), '');
  assert.deepEqual(
    requests.map(request => request.url),
    ['/kafka-jupyter/runs/a-1234/retry', '/kafka-jupyter/runs/a-1234/pause']
  );
  await close();
});

test('while Kafka or the server is away a run knows it, and when they are back too', { timeout: 10_000 }, async () => {
  const streams: ServerResponse[] = [];
  const { hub, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
      streams.push(response);
      event(response, String(streams.length), 'health', { reachable: true, message: '' });
    } else {
      response.end(JSON.stringify({ run: run(1), rows: [] }));
    }
  });
  const model = new RunModel('a-1234', hub);
  const until = followed(model);
  await until(() => model.known === true);
  assert.equal(model.away, false);
  event(streams[0], '7', 'health', { reachable: false, message: 'Kafka does not answer' });
  await until(() => model.away);
  event(streams[0], '8', 'health', { reachable: true, message: '' });
  await until(() => !model.away);
  streams[0].end('retry: 10\n\n');
  await until(() => model.away);
  await until(() => !model.away && streams.length === 2);
  model.dispose();
  await close();
});

test('without a server the hub is off', { timeout: 10_000 }, async () => {
  const model = new RunModel('a-1234', new StreamHub());
  await reached(model, () => model.connection === 'off');
  model.dispose();
});

test('a card that comes later widens the connection, and nothing is lost or asked twice', { timeout: 10_000 }, async () => {
  const { hub, requests, close } = await site((path, request, response) => {
    if (path === 'events') {
      startStream(response);
      const begin = request.headers['last-event-id'] ? 2 : 1;
      event(response, String(begin), 'metrics', { run_id: 'a-1234', attempt: 1, rows: [row(begin, begin)] });
    } else {
      response.end(JSON.stringify({ run: { ...run(1), run_id: path.slice('runs/'.length) }, rows: [] }));
    }
  });
  const first = new RunModel('a-1234', hub);
  const untilFirst = followed(first);
  await untilFirst(() => first.known === true && first.history.epochs.length === 1);
  const second = new RunModel('b-5678', hub);
  await reached(second, () => second.known === true);
  await untilFirst(() => first.history.epochs.length === 2);
  assert.deepEqual(
    requests.filter(isStream).map(r => r.url),
    ['/kafka-jupyter/events?runs=a-1234', '/kafka-jupyter/events?runs=a-1234,b-5678']
  );
  first.dispose();
  second.dispose();
  await close();
});

test('more runs than an address can name are taken all', { timeout: 10_000 }, async () => {
  const { hub, requests, close } = await site((path, _, response) => {
    if (path === 'events') {
      startStream(response);
    } else {
      response.writeHead(400).end();
    }
  });
  const models = Array.from({ length: 101 }, (_, i) => new RunModel(`run-${i}`, hub));
  await Promise.all(models.map(model => reached(model, () => model.known === false)));
  assert.deepEqual(
    requests.filter(isStream).map(r => r.url),
    ['/kafka-jupyter/events']
  );
  models.forEach(model => model.dispose());
  await close();
});
