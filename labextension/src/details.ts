/** What a run trains, its attempts and artifacts: asked for once, when somebody looks. Everything read here is untrusted. */
import { plain } from './format';
import { type Json, isObject, numberOf } from './rows';
import type { StreamHub } from './stream';

export type Value = string | number | boolean;

export interface IAttempt {
  n: number;
  worker: string;
  host: string;
  device: string;
  epoch: number; // where it began
  step: number;
  started_ms: number;
  ended: string; // "", "superseded" or the run's own end
}

export interface IArtifact {
  name: string;
  kind: string; // "result", "file", "checkpoint" or "input"
  size: number; // bytes
  sha256: string;
  where: string;
}

export interface IDetails {
  parameters: [string, Value][];
  source: string;
  versions: string;
  attempts: IAttempt[];
  artifacts: IArtifact[];
  /** Its notebook, below the server's folder; empty if it lies elsewhere. */
  path: string;
  /** Is the task still in the log? */
  task: boolean;
}

const LIST = 500;
const NAME = 300;
const SOURCE = 100_000;

const text = (value: unknown, limit = NAME): string => (typeof value === 'string' ? plain(value, limit) : '');
const objects = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject).slice(0, LIST) : []);
const pairs = (value: unknown): [string, unknown][] => (isObject(value) ? Object.entries(value).slice(0, LIST) : []);

function valueOf(value: unknown): Value | null {
  return typeof value === 'number' || typeof value === 'boolean' ? value : typeof value === 'string' ? text(value) : null;
}

export function detailsOf(body: unknown): IDetails | null {
  if (!isObject(body)) {
    return null;
  }
  const parameters = pairs(body.parameters).map(([name, value]): [string, Value | null] => [text(name), valueOf(value)]);
  return {
    parameters: parameters.filter((pair): pair is [string, Value] => pair[1] !== null),
    source: text(body.source, SOURCE),
    versions: pairs(body.versions)
      .map(([name, version]) => `${text(name)} ${text(version)}`)
      .join(', '),
    attempts: objects(body.attempts).map(each => ({
      n: numberOf(each.n),
      worker: text(each.worker),
      host: text(each.host),
      device: text(each.device),
      epoch: numberOf(each.epoch),
      step: numberOf(each.step),
      started_ms: numberOf(each.started_ms),
      ended: text(each.ended)
    })),
    artifacts: objects(body.artifacts).map(each => ({
      name: text(each.name),
      kind: text(each.kind),
      size: numberOf(each.size),
      sha256: text(each.sha256),
      where: text(each.where)
    })),
    path: typeof body.path === 'string' ? body.path : '',
    task: body.task !== false
  };
}

/** Raises with what the server said. */
export async function askDetails(hub: StreamHub, runId: string): Promise<IDetails> {
  const response = await hub.request(`runs/${encodeURIComponent(runId)}/details`);
  const body: unknown = await response.json().catch(() => null);
  const details = response.ok ? detailsOf(body) : null;
  if (!details) {
    throw new Error(isObject(body) && typeof body.message === 'string' ? body.message : `HTTP ${response.status}`);
  }
  return details;
}

/** The parameters in which the runs differ, in the order of the first that has them; `all`: the equal ones too. */
export function differing(tables: readonly (readonly [string, Value][])[], all = false): [string, (Value | undefined)[]][] {
  const names = [...new Set(tables.flatMap(table => table.map(([name]) => name)))];
  const maps = tables.map(table => new Map(table));
  const rows = names.map((name): [string, (Value | undefined)[]] => [name, maps.map(map => map.get(name))]);
  return rows.filter(([, values]) => all || new Set(values).size > 1);
}

/** 1536 → "1.5 KiB" */
export function bytes(size: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, size)) / 10));
  return power ? `${(size / 2 ** (10 * power)).toFixed(1)} ${units[power]}` : `${size} B`;
}
