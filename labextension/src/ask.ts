/** What a person asks of a run, as a request to the server. */
import { type Json, isObject } from './rows';
import type { Verb } from './run';
import type { StreamHub } from './stream';
import { refusalOf } from './transport';
import { trans } from './words';

/** What the server said instead of doing it. `kind` is the name of its error, empty where it gave none. */
export class Refused extends Error {
  constructor(
    readonly kind: string,
    message: string
  ) {
    super(message);
  }
}

/** Raises Refused, or what broke the connection. */
export async function ask(hub: StreamHub, runId: string, verb: Verb | 'settings', body: Json = {}): Promise<Json> {
  const asked = { method: 'POST', body: JSON.stringify(body) };
  return answerOf(await hub.request(`runs/${encodeURIComponent(runId)}/${verb}`, asked));
}

/** What the output of a cell holds once these runs have ended: data by mime type. Raises Refused, or what broke the connection. */
export async function askOutput(hub: StreamHub, runIds: readonly string[]): Promise<Json> {
  const answer = await answerOf(await hub.request(`output?runs=${runIds.map(encodeURIComponent).join(',')}`));
  if (!isObject(answer.data)) {
    throw new Refused('', trans.__('the server has sent no output'));
  }
  return answer.data;
}

async function answerOf(response: Response): Promise<Json> {
  if (response.ok) {
    const answer: unknown = await response.json().catch(() => null);
    return isObject(answer) ? answer : {};
  }
  const { kind, message } = await refusalOf(response);
  throw new Refused(kind, message || `HTTP ${response.status}`);
}
