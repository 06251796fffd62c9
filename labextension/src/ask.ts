/** What a person asks of a run, as a request to the server. */
import { type Json, isObject } from './rows';
import type { Verb } from './run';
import type { StreamHub } from './stream';

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
  const response = await hub.request(`runs/${encodeURIComponent(runId)}/${verb}`, asked);
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) {
    return isObject(answer) ? answer : {};
  }
  const said = isObject(answer) ? answer : {};
  throw new Refused(typeof said.error === 'string' ? said.error : '', typeof said.message === 'string' ? said.message : `HTTP ${response.status}`);
}
